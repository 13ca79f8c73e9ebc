//! Keys that there are, or that there will be once Vault has unwrapped them.

use tokio::sync::watch;

use super::Keys;

/// Whoever fingerprints asks this for the keys: those of a file may come later than the process starts.
#[derive(Debug, Clone)]
pub struct Keyring(watch::Receiver<Option<Keys>>);

/// Gives them to whoever waits.
pub type Give = watch::Sender<Option<Keys>>;

impl Keyring {
    /// One that is empty, until keys are given.
    pub fn later() -> (Give, Self) {
        let (give, keyring) = watch::channel(None);
        (give, Self(keyring))
    }

    /// The keys, where they are here.
    pub fn now(&self) -> Option<Keys> {
        self.0.borrow().clone()
    }

    /// The keys, when they are here. `None`: they never come, since the process ends.
    pub async fn wait(&self) -> Option<Keys> {
        let mut keyring = self.0.clone();
        let keys = keyring.wait_for(Option::is_some).await.ok()?;
        keys.clone()
    }
}

impl From<Keys> for Keyring {
    fn from(keys: Keys) -> Self {
        Self(watch::channel(Some(keys)).1)
    }
}
