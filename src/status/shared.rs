//! One picture of each page for all who watch it: however many they are, the journal is asked once a second for each page,
//! and for two pages at a time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};

use super::facts::{Found, Source};
use super::{View, page};

/// For so long a picture is shown, in milliseconds.
pub const FRESH_MS: i64 = 1_000;
/// Pages that are looked up at a time: people wait for each other, not the pipeline for people.
const AT_A_TIME: usize = 2;
/// Pages of which there is a picture.
const PICTURES: usize = 64;
/// Pages that somebody waits for: beyond it nobody else is let wait.
const WAITED_FOR: usize = 256;
/// How long the journal may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A page, ready to be sent.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The status of HTTP.
    pub status: u16,
    /// The page.
    pub html: Bytes,
}

/// When it was taken, by the monotonic clock; while it is being taken, whoever wants it waits for it.
type Slot = Arc<Mutex<Option<(i64, Picture)>>>;

/// All pictures.
#[derive(Clone)]
pub struct Shared {
    source: Arc<Source>,
    slots: Arc<std::sync::Mutex<HashMap<View, Slot>>>,
    turns: Arc<Semaphore>,
}

impl Shared {
    /// Pictures of what `source` has.
    pub fn new(source: Source) -> Self {
        Self { source: Arc::new(source), slots: Arc::default(), turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// A picture that is at most [`FRESH_MS`] old. `None`: too many wait, or a bug ended it.
    pub async fn picture(&self, view: View) -> Option<Picture> {
        let (all, slot) = (self.clone(), self.slot(&view)?);
        // Who hangs up does not stop what others wait for, nor begin it anew.
        tokio::spawn(async move { all.taken(&view, &slot).await }).await.ok()
    }

    fn slot(&self, view: &View) -> Option<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= PICTURES && !slots.contains_key(view) {
            // Those that somebody is waiting for stay.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            if slots.len() >= WAITED_FOR {
                return None;
            }
        }
        Some(slots.entry(view.clone()).or_default().clone())
    }

    async fn taken(&self, view: &View, slot: &Slot) -> Picture {
        let clock = &self.source.clock;
        let mut known = slot.lock().await;
        if let Some((at_ms, picture)) = known.as_ref()
            && clock.monotonic_ms() - at_ms < FRESH_MS
        {
            return picture.clone();
        }
        let found = async {
            let _turn = self.turns.acquire().await.ok()?;
            Some(self.source.look(view).await)
        };
        let found = tokio::time::timeout(PATIENCE, found).await.ok().flatten().unwrap_or(Found::NoAnswer);
        let (status, html) = page(view, &found, clock.wall_ms());
        let picture = Picture { status, html: html.into_string().into() };
        *known = Some((clock.monotonic_ms(), picture.clone()));
        picture
    }
}
