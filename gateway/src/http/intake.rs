//! Bodies that come in: cut into parts within the common budget, with limits on slowness.
//!
//! A part grows while the budget has room and is given on when it has not, so that many transfers
//! at once mean smaller parts and never more memory. A body that stalls or crawls is cut off;
//! what arrived before is handed on first, so that the client can resume behind it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::budget::{Budget, PIECE_BYTES_MIN, Share};
use crate::config::Limits;

/// A part that is worth an object of its own in the store.
pub const PART_BYTES_MAX: usize = 8 << 20;
/// How much budget is asked for at a time.
const STEP_BYTES: usize = 512 << 10;
/// With no budget left a transfer waits so long before it gives on a small part.
const PRESSURE_WAIT: Duration = Duration::from_millis(100);
/// A part that waits for its client is given on after this while others wait for budget.
const LINGER: Duration = Duration::from_secs(2);
/// A body may start slowly.
const RATE_GRACE: Duration = Duration::from_secs(60);

/// Why a body ended too early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client went away or broke the protocol.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// Nothing came for too long.
    #[error("the body brought nothing for {0:?}")]
    Stalled(Duration),
    /// Something came, but hardly anything.
    #[error("the body came with less than {0} bytes per second")]
    TooSlow(u64),
    /// More than the limit.
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
}

/// Bytes that came in, as they came, with the budget they hold.
#[derive(Debug, Default)]
struct Part {
    /// In order; never empty pieces.
    chunks: Vec<Bytes>,
    /// How many bytes.
    len: usize,
    shares: Option<Share>,
}

impl Part {
    fn covered(&self) -> usize {
        PIECE_BYTES_MIN + self.shares.as_ref().map_or(0, Share::bytes)
    }

    /// In one piece, as the store wants it. Chunks go as they are copied, so that no part is in
    /// memory twice.
    fn joined(mut self) -> Bytes {
        let bytes = match self.chunks.len() {
            1 => self.chunks.swap_remove(0),
            _ => {
                let mut all = BytesMut::with_capacity(self.len);
                for chunk in self.chunks {
                    all.extend_from_slice(&chunk);
                }
                all.freeze()
            }
        };
        match self.shares {
            Some(shares) => shares.guard(bytes),
            None => bytes,
        }
    }
}

/// Reads a body part by part.
#[derive(Debug)]
pub struct Intake {
    body: Incoming,
    budget: Budget,
    stall: Duration,
    rate_min: u64,
    /// The most that may come.
    max: u64,
    /// What came.
    received: u64,
    began: Instant,
    /// Came when the part before had no room for it.
    left: Option<Bytes>,
    /// Told after what came before it has been given on.
    failed: Option<BodyError>,
    ended: bool,
}

impl Intake {
    /// Of a body of at most `max` bytes.
    #[must_use]
    pub fn new(body: Incoming, budget: Budget, limits: &Limits, max: u64) -> Self {
        Self {
            body,
            budget,
            stall: limits.stall_time,
            rate_min: limits.body_rate_min,
            max,
            received: 0,
            began: Instant::now(),
            left: None,
            failed: None,
            ended: false,
        }
    }

    /// Bytes that came so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The body as it is now, to be drained.
    pub fn into_body(self) -> Incoming {
        self.body
    }

    /// The next part, never empty; `None` at the end.
    ///
    /// # Errors
    /// When the body ended too early; every byte before that was given on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let mut part = Part::default();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            let chunk = match self.left.take() {
                Some(chunk) => chunk,
                None if self.ended => break,
                None => match self.chunk(&part).await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break,
                    Err(error) if part.len == 0 => return Err(error),
                    Err(error) => {
                        self.failed = Some(error);
                        break;
                    }
                },
            };
            if part.len > 0 && !self.has_room(&mut part, chunk.len()).await {
                self.left = Some(chunk);
                break;
            }
            part.len += chunk.len();
            part.chunks.push(chunk);
            if part.len >= PART_BYTES_MAX {
                break;
            }
        }
        Ok((part.len > 0).then(|| part.joined()))
    }

    /// Takes more budget when the part needs it; false when the part should be given on.
    async fn has_room(&self, part: &mut Part, more: usize) -> bool {
        if part.len + more > PART_BYTES_MAX {
            return false;
        }
        while part.len + more > part.covered() {
            let mut share = self.budget.try_take(STEP_BYTES);
            if share.is_none() && part.len < STEP_BYTES {
                // Worth a moment: tiny parts cost the store more than waiting costs the client.
                tokio::time::sleep(PRESSURE_WAIT).await;
                share = self.budget.try_take(STEP_BYTES);
            }
            let Some(share) = share else { return false };
            match &mut part.shares {
                Some(shares) => shares.merge(share),
                None => part.shares = Some(share),
            }
        }
        true
    }

    /// The next bytes of the body; `None` at its end, or to give `part` on.
    async fn chunk(&mut self, part: &Part) -> Result<Option<Bytes>, BodyError> {
        let deadline = Instant::now() + self.stall;
        loop {
            // A large part of a slow client must not sit on budget that others wait for.
            let patience = if part.shares.is_some() { LINGER } else { self.stall };
            let until = deadline.min(Instant::now() + patience);
            match tokio::time::timeout_at(until, self.body.frame()).await {
                Ok(None) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(BodyError::Broken(error)),
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if !data.is_empty() {
                        self.count(data.len())?;
                        return Ok(Some(data));
                    }
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(BodyError::Stalled(self.stall));
                }
                Err(_) if self.budget.try_take(STEP_BYTES).is_none() => return Ok(None),
                Err(_) => {}
            }
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.received += bytes as u64;
        if self.received > self.max {
            return Err(BodyError::TooLong(self.max));
        }
        let took = self.began.elapsed();
        if took > RATE_GRACE && self.received / took.as_secs().max(1) < self.rate_min {
            return Err(BodyError::TooSlow(self.rate_min));
        }
        Ok(())
    }

    /// A whole small body.
    ///
    /// # Errors
    /// As [`Self::next`]; `TooLong` beyond the maximum.
    pub async fn whole(&mut self) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        let nothing = Part::default();
        while let Some(chunk) = self.chunk(&nothing).await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

/// Reads on what was refused, within bounds, while the refusal is on its way: a client that is
/// still sending would otherwise see a broken connection instead of the reason.
pub fn drain(mut body: Incoming, limits: &Limits) {
    use http_body::Body as _;
    if body.is_end_stream() {
        return;
    }
    let (bytes_max, time_max) = (limits.drain_bytes, limits.drain_time);
    tokio::spawn(async move {
        let reading = async {
            let mut bytes = 0u64;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > bytes_max {
                    return;
                }
            }
        };
        let _bounded = tokio::time::timeout(time_max, reading).await;
    });
}
