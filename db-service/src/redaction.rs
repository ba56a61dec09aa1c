//! What of a URL may be shown.

use std::borrow::Cow;

/// The URL without the password, be it in the user's part or among the parameters.
pub(crate) fn redacted(url: &str) -> String {
    const HIDDEN: &str = "***";
    let (location, query) = url
        .split_once('?')
        .map_or((url, None), |(location, query)| (location, Some(query)));
    let mut shown = match location
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?)))
    {
        Some((scheme, (user, host))) => {
            let user = user
                .split_once(':')
                .map_or(Cow::Borrowed(user), |(name, _)| {
                    Cow::Owned(format!("{name}:{HIDDEN}"))
                });
            format!("{scheme}://{user}@{host}")
        }
        None => location.to_owned(),
    };
    for (position, pair) in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .enumerate()
    {
        shown.push(if position == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if !is_harmless(name) => shown.extend([name, "=", HIDDEN]),
            _ => shown.push_str(pair),
        }
    }
    shown
}

/// Parameters that hold no secret, and are worth showing; libpq gets new ones with each version.
fn is_harmless(name: &str) -> bool {
    const HARMLESS: [&str; 7] = [
        "application_name",
        "connect_timeout",
        "host",
        "hostaddr",
        "port",
        "sslmode",
        "target_session_attrs",
    ];
    HARMLESS.contains(&name)
}
