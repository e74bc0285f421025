//! What stands in the place of `dashmap`: the same calls and the same locks around
//! them, but locks that shuttle knows. A real one would stop the only thread that
//! shuttle runs everything on.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use shuttle::sync::{Mutex, MutexGuard};

/// Enough that other keys are mostly not in the way.
const SHARDS: usize = 4;

type Shard<K, V> = HashMap<K, V>;

#[derive(Debug)]
pub(crate) struct DashMap<K, V, S = ()> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
    hasher: PhantomData<S>,
}

impl<K, V, S> Default for DashMap<K, V, S> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())), hasher: PhantomData }
    }
}

impl<K: Hash + Eq + Clone, V, S> DashMap<K, V, S> {
    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Shard<K, V>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Ref<'_, K, V>>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard(key);
        let key = shard.get_key_value(key)?.0.clone();
        Some(Ref { shard, key })
    }

    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Ref<'_, K, V>>
    where
        K: Borrow<Q>,
    {
        self.get(key)
    }

    pub(crate) fn remove_if<Q: Hash + Eq + ?Sized>(&self, key: &Q, is_so: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let mut shard = self.shard(key);
        let (known, value) = shard.get_key_value(key)?;
        if is_so(known, value) { shard.remove_entry(key) } else { None }
    }

    pub(crate) fn entry(&self, key: K) -> Entry<'_, K, V> {
        let shard = self.shard(&key);
        let place = Ref { shard, key };
        if place.shard.contains_key(&place.key) { Entry::Occupied(place) } else { Entry::Vacant(place) }
    }
}

/// A value behind its shard's lock.
pub(crate) struct Ref<'a, K, V> {
    shard: MutexGuard<'a, Shard<K, V>>,
    key: K,
}

impl<K: Hash + Eq, V> Ref<'_, K, V> {
    pub(crate) fn value(&self) -> &V {
        &self.shard[&self.key]
    }
}

impl<K: Hash + Eq, V> Deref for Ref<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value()
    }
}

impl<K: Hash + Eq, V> DerefMut for Ref<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.shard.get_mut(&self.key).expect("it was found under this lock")
    }
}

pub(crate) enum Entry<'a, K, V> {
    Occupied(Ref<'a, K, V>),
    Vacant(Ref<'a, K, V>),
}

impl<'a, K: Hash + Eq + Clone, V> Entry<'a, K, V> {
    pub(crate) fn or_insert_with(self, new: impl FnOnce() -> V) -> Ref<'a, K, V> {
        match self {
            Self::Occupied(found) => found,
            Self::Vacant(Ref { mut shard, key }) => {
                shard.insert(key.clone(), new());
                Ref { shard, key }
            }
        }
    }

    pub(crate) fn or_default(self) -> Ref<'a, K, V>
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }
}
