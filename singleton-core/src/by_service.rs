//! What is known by service, found without a search: services are numbered as they are met.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::descriptor::Descriptor;

/// A service's number, given when it is first asked for.
pub(crate) struct Number(AtomicUsize);

impl Number {
    pub(crate) const fn new() -> Self {
        Number(AtomicUsize::new(0))
    }

    fn get(&self) -> usize {
        // A number says nothing of anything else in memory.
        match self.0.load(Ordering::Relaxed) {
            0 => self.assign(),
            number => number - 1,
        }
    }

    #[cold]
    fn assign(&self) -> usize {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let assigned = self
            .0
            .compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        // Whoever came second takes the number of the first.
        assigned.map_or_else(|first| first - 1, |_| number - 1)
    }
}

/// A value for some of the services.
pub(crate) struct ByService<V> {
    places: Vec<Option<(&'static Descriptor, V)>>,
}

impl<V> Default for ByService<V> {
    fn default() -> Self {
        ByService { places: Vec::new() }
    }
}

impl<V> ByService<V> {
    pub(crate) fn get(&self, service: &Descriptor) -> Option<&V> {
        let place = self.places.get(service.number.get())?;
        place.as_ref().map(|(_, value)| value)
    }

    /// The place of the service's value, where there is none yet.
    pub(crate) fn place(
        &mut self,
        service: &'static Descriptor,
    ) -> &mut Option<(&'static Descriptor, V)> {
        let number = service.number.get();
        if number >= self.places.len() {
            self.places.resize_with(number + 1, || None);
        }
        &mut self.places[number]
    }

    pub(crate) fn get_or_default(&mut self, service: &'static Descriptor) -> &mut V
    where
        V: Default,
    {
        let place = self.place(service);
        &mut place.get_or_insert_with(|| (service, V::default())).1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Descriptor, &V)> {
        let known = self.places.iter().flatten();
        known.map(|(service, value)| (*service, value))
    }
}
