//! Giving a log its sinks.

use std::sync::Arc;

use super::log::Log;
use super::sink::{Sink, SinkSettings, SinkStatus};
use super::sink_follow::Follower;
use super::sink_hub::Hub;
use super::sink_position::Position;
use crate::error::{Dependency, Error};
use crate::fs::Fs;

impl Log {
    /// Gives the log its sinks, once, before anybody is answered. Each goes on where it was, however long ago; a new one
    /// begins as its settings say. From here on no call is answered whose entry a mandatory sink has not confirmed, and
    /// until each of them has caught up, calls are refused.
    ///
    /// `fs` is the one that the log was opened on.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `name`, if it is not acceptable or used twice; [`Error::FailedPrecondition`] for a log
    /// that has sinks; [`Error::Corrupt`] if a sink confirmed more entries than there are, or its position is damaged;
    /// [`Error::Unavailable`] if positions cannot be written.
    pub fn attach(&self, fs: &Arc<dyn Fs>, sinks: Vec<(SinkSettings, Box<dyn Sink>)>) -> Result<(), Error> {
        if sinks.is_empty() {
            return Ok(());
        }
        let head = self.heads.latest().size;
        let mut positions: Vec<Position> = Vec::with_capacity(sinks.len());
        for (at, (settings, _)) in sinks.iter().enumerate() {
            settings.check()?;
            if sinks.iter().take(at).any(|(other, _)| other.name == settings.name) {
                return Err(Error::invalid("name", "is that of another sink"));
            }
            positions.push(self.position(&**fs, settings, head)?);
        }
        let places = sinks.iter().zip(&positions);
        let places =
            places.map(|((settings, sink), position)| (settings.clone(), sink.kind(), position.next)).collect();
        let hub = Arc::new(Hub::new(head, places));
        self.shared.sinks.set(Arc::clone(&hub)).map_err(|_| Error::FailedPrecondition("the log has its sinks"))?;
        // What was written meanwhile, by a writer that did not see them yet.
        hub.grow(self.heads.latest().size);
        hub.tell(&self.shared);
        let shared = Arc::clone(&self.shared);
        let watching = Arc::clone(&hub);
        spawn("audit-sinks".to_owned(), move || watching.watch(&shared))?;
        for (at, ((settings, sink), position)) in sinks.into_iter().zip(positions).enumerate() {
            let follower = Follower {
                shared: Arc::clone(&self.shared),
                hub: Arc::clone(&hub),
                at,
                name: settings.name,
                sink,
                fs: Arc::clone(fs),
                dir: self.segments.dir.clone(),
                verifier: self.signer.verifier().clone(),
                position,
            };
            spawn(format!("audit-sink-{at}"), move || follower.run())?;
        }
        Ok(())
    }

    /// Where a sink goes on.
    fn position(&self, fs: &dyn Fs, settings: &SinkSettings, head: u64) -> Result<Position, Error> {
        if let Some(position) = Position::load(fs, &self.segments.dir, &settings.name)? {
            if position.next > head {
                let why = format!("sink {} has more entries than the log: it was rolled back", settings.name);
                return Err(Error::corrupt("audit log", why));
            }
            return Ok(position);
        }
        let position = Position { next: if settings.history { 0 } else { head }, last: [0; 32] };
        // At once: else a crash could let it begin later than it did.
        position
            .save(fs, &self.segments.dir, &settings.name)
            .map_err(|why| Error::unavailable(Dependency::Audit, why))?;
        Ok(position)
    }

    /// How the sinks are, in the order of [`Self::attach`].
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.shared.sinks.get().map(|hub| hub.status()).unwrap_or_default()
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let made = std::thread::Builder::new().name(name).spawn(work);
    made.map(drop).map_err(|_| Error::unavailable(Dependency::Audit, "the operating system gave no thread"))
}
