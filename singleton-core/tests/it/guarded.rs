//! All forms of methods that `#[guarded]` accepts.

use std::borrow::Cow;
use std::fmt::Display;

use singleton_core::{Error, Service, guarded, service};

#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error(transparent)]
    Service(#[from] Error),
    #[error("no {0}")]
    Missing(String),
}

type ShopResult<T> = Result<T, ShopError>;

/// Unit structs with the names of columns, as diesel's `dsl` modules bring them into scope.
mod columns {
    #![allow(non_camel_case_types, dead_code)]
    pub(super) struct error;
    pub(super) struct service;
    pub(super) struct initialize;
}
#[allow(unused_imports)]
use columns::*;

#[service]
struct Shop {
    name: String,
    shelf: Vec<String>,
}

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop {
            name: "Corner".to_owned(),
            shelf: vec!["tea".to_owned(), "milk".to_owned()],
        })
    }
}

struct View<'a>(&'a str);

#[allow(
    clippy::needless_arbitrary_self_type,
    clippy::type_complexity,
    reason = "forms that users write"
)]
impl Shop {
    /// A doc comment, which is kept.
    #[guarded]
    pub fn name(&self) -> Result<&str, Error> {
        Ok(&self.name)
    }

    #[guarded]
    fn explicit<'a>(&'a self, _other: &str) -> Result<&'a str, Error> {
        Ok(&self.name)
    }

    #[guarded]
    fn typed_receiver(self: &Self) -> Result<&String, Error> {
        Ok(&self.name)
    }

    #[guarded]
    fn in_paths(&self) -> Result<(View<'_>, Cow<'_, str>, Option<&[String]>), Error> {
        Ok((
            View(&self.name),
            Cow::Borrowed(&self.name),
            Some(&self.shelf),
        ))
    }

    #[guarded]
    fn find(&self, name: &str) -> ShopResult<&String> {
        self.shelf
            .iter()
            .find(|item| *item == name)
            .ok_or_else(|| ShopError::Missing(name.to_owned()))
    }

    #[guarded]
    fn generic<T, const N: usize>(&self, values: [T; N]) -> Result<String, Error>
    where
        T: Display + Copy,
    {
        Ok(values
            .iter()
            .map(|value| format!("{}:{value} ", self.name))
            .collect())
    }

    #[guarded]
    fn not_inferable<T>(&self) -> Result<&'static str, Error> {
        Ok(std::any::type_name::<T>())
    }

    #[guarded]
    fn with_impl(
        &self,
        prefix: impl Into<String>,
        items: &[impl Display],
    ) -> Result<String, Error> {
        Ok(format!("{} {} {}", prefix.into(), self.name, items.len()))
    }

    #[guarded]
    fn items(&self) -> Result<impl Iterator<Item = &String>, Error> {
        Ok(self.shelf.iter())
    }

    #[guarded]
    fn patterns(
        &self,
        (left, right): (u32, u32),
        _: u8,
        mut last: String,
        [first, ..]: [u32; 3],
    ) -> Result<String, Error> {
        last.push_str(&(left + right + first).to_string());
        Ok(last)
    }

    #[guarded]
    fn callback(
        &self,
        choose: fn(&str) -> &str,
        map: &dyn Fn(&str) -> usize,
    ) -> Result<(&'static str, usize), Error> {
        let _ = &self.shelf;
        Ok((choose("kept"), map("abc")))
    }

    /// A method whose arguments have names that the expansion uses.
    #[guarded]
    fn names(&self, this: &str, instance: u8, r#type: u8) -> Result<String, Error> {
        Ok(format!("{this}{instance}{type}", type = r#type))
    }

    #[guarded]
    fn unnamed(&self, _: u8, argument_1: u8, (__a, _): (u8, u8)) -> Result<u8, Error> {
        Ok(argument_1 + __a)
    }

    #[guarded]
    #[expect(
        non_snake_case,
        clippy::too_many_arguments,
        unused_variables,
        reason = "survives"
    )]
    fn expectantMethod(
        &self,
        a: u8,
        b: u8,
        c: u8,
        d: u8,
        e: u8,
        f: u8,
        g: u8,
        h: u8,
    ) -> Result<u8, Error> {
        let unused = 1;
        Ok(a)
    }

    #[guarded]
    fn r#match(&self) -> Result<&str, Error> {
        Ok(&self.name)
    }

    #[guarded]
    async fn wait(&self, name: &str) -> Result<&String, ShopError> {
        std::future::ready(()).await;
        Self::find(name)
    }

    #[guarded]
    fn without_receiver(number: u32) -> Result<u32, Error> {
        if number == 0 {
            return Ok(1);
        }
        Ok(number * 2)
    }

    #[guarded]
    async fn async_without_receiver(number: u32) -> Result<u32, Error> {
        Self::without_receiver(number)
    }

    #[guarded]
    #[must_use = "a receipt"]
    #[track_caller]
    #[allow(clippy::unnecessary_wraps)]
    #[cfg(not(any()))]
    fn attributes(&self) -> Result<u32, Error> {
        Ok(std::panic::Location::caller().line())
    }
}

#[track_caller]
#[test]
fn results_can_borrow_from_the_instance_for_static() {
    let name: &'static str = Shop::name().unwrap();
    let explicit: &'static str = Shop::explicit(&String::from("short-lived")).unwrap();
    let typed: &'static String = Shop::typed_receiver().unwrap();
    let (View(view), cow, shelf): (View<'static>, Cow<'static, str>, Option<&'static [String]>) =
        Shop::in_paths().unwrap();
    assert_eq!([name, explicit, typed, view, &cow], ["Corner"; 5]);
    assert_eq!(shelf.unwrap().len(), 2);
    let found: &'static String = Shop::find(&String::from("tea")).unwrap();
    assert_eq!(found, "tea");
    assert_eq!(Shop::items().unwrap().count(), 2);
    assert!(
        std::ptr::eq(name, Shop::name().unwrap()),
        "there is one instance"
    );
}

#[test]
fn arguments_of_each_form_are_passed_on() {
    assert_eq!(Shop::generic([1, 2]).unwrap(), "Corner:1 Corner:2 ");
    assert_eq!(Shop::not_inferable::<u8>().unwrap(), "u8");
    assert_eq!(Shop::with_impl("the", &[1, 2, 3]).unwrap(), "the Corner 3");
    assert_eq!(
        Shop::patterns((1, 2), 9, "sum ".to_owned(), [4, 0, 0]).unwrap(),
        "sum 7"
    );
    assert_eq!(
        Shop::callback(|text| text, &|text| text.len()).unwrap(),
        ("kept", 3)
    );
    assert_eq!(Shop::names("a", 1, 3).unwrap(), "a13");
    assert_eq!(Shop::unnamed(1, 2, (3, 4)).unwrap(), 5);
    assert_eq!(Shop::expectantMethod(1, 2, 3, 4, 5, 6, 7, 8).unwrap(), 1);
    assert_eq!(Shop::r#match().unwrap(), "Corner");
    assert_eq!(Shop::without_receiver(21).unwrap(), 42);
    assert_eq!(Shop::without_receiver(0).unwrap(), 1);
    assert_eq!(Shop::find("tin").unwrap_err().to_string(), "no tin");
    assert_eq!(Shop::attributes().unwrap(), line!());
}

#[test]
fn async_methods_are_guarded_when_awaited() {
    assert_eq!(pollster::block_on(Shop::wait("milk")).unwrap(), "milk");
    assert_eq!(
        pollster::block_on(Shop::async_without_receiver(4)).unwrap(),
        8
    );
}

mod elsewhere {
    use singleton_core::Service;

    // Both orders of the attributes, several lists, paths, and an empty list.
    #[singleton_core::requires(super::Shop)]
    #[singleton_core::service]
    #[singleton_core::requires()]
    pub(crate) struct Above;

    #[singleton_core::requires(Above, super::Shop)]
    #[singleton_core::service]
    pub(crate) struct ByPath;

    impl Service for Above {
        fn initialize() -> anyhow::Result<Self> {
            Ok(Above)
        }
    }

    impl Service for ByPath {
        fn initialize() -> anyhow::Result<Self> {
            Ok(ByPath)
        }
    }
}

#[test]
fn attributes_work_in_any_order() {
    use singleton_core::Requirement;
    assert_eq!(
        (Shop::RANK, elsewhere::Above::RANK, elsewhere::ByPath::RANK),
        (1, 2, 3)
    );
    assert!(elsewhere::ByPath::instance().is_ok());
    assert!(elsewhere::Above::is_initialized());
}
