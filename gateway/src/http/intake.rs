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

/// Bytes that came in, copied into blocks, each with the budget that it holds.
///
/// Copied, because hyper gives ends of its read buffers, and each end would keep a whole buffer:
/// several times what it holds. Blocks have few sizes, so that a freed one is taken again.
#[derive(Debug, Default)]
struct Part {
    /// In order; never empty ones.
    full: Vec<Bytes>,
    open: BytesMut,
    /// What the open block holds.
    share: Option<Share>,
    /// How many bytes.
    len: usize,
    /// How many there is room for in all blocks.
    room: usize,
}

impl Part {
    fn holds_budget(&self) -> bool {
        self.room > PIECE_BYTES_MIN
    }

    /// Takes as much as the open block has room for.
    fn fill(&mut self, from: &mut Bytes) {
        let fits = from.len().min(self.room - self.len);
        self.open.extend_from_slice(&from.split_to(fits));
        self.len += fits;
    }

    /// Begins another block; the one before is full.
    fn extend(&mut self, bytes: usize, share: Option<Share>) {
        self.close();
        self.open = BytesMut::with_capacity(bytes);
        self.share = share;
        self.room += bytes;
    }

    fn close(&mut self) {
        let bytes = std::mem::take(&mut self.open).freeze();
        let share = self.share.take();
        if !bytes.is_empty() {
            self.full.push(match share {
                Some(share) => share.guard(bytes),
                None => bytes,
            });
        }
    }

    fn into_blocks(mut self) -> Vec<Bytes> {
        self.close();
        self.full
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

    /// The next part, in blocks, never empty; `None` at the end.
    ///
    /// # Errors
    /// When the body ended too early; every byte before that was given on.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, BodyError> {
        let mut part = Part::default();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            let mut chunk = match self.left.take() {
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
            part.fill(&mut chunk);
            while !chunk.is_empty() && self.extend(&mut part).await {
                part.fill(&mut chunk);
            }
            if !chunk.is_empty() {
                self.left = Some(chunk);
                break;
            }
        }
        Ok((part.len > 0).then(|| part.into_blocks()))
    }

    /// Gives the part one more block; false when it should be given on.
    async fn extend(&self, part: &mut Part) -> bool {
        if part.room == 0 {
            part.extend(PIECE_BYTES_MIN, None);
            return true;
        }
        let wanted = STEP_BYTES.min(PART_BYTES_MAX - part.room);
        if wanted == 0 {
            return false;
        }
        let mut share = self.budget.try_take(wanted);
        if share.is_none() && part.len < STEP_BYTES {
            // Worth a moment: tiny parts cost the store more than waiting costs the client.
            tokio::time::sleep(PRESSURE_WAIT).await;
            share = self.budget.try_take(wanted);
        }
        let Some(share) = share else { return false };
        part.extend(share.bytes().min(wanted), Some(share));
        true
    }

    /// The next bytes of the body; `None` at its end, or to give `part` on.
    async fn chunk(&mut self, part: &Part) -> Result<Option<Bytes>, BodyError> {
        let deadline = Instant::now() + self.stall;
        loop {
            // A large part of a slow client must not sit on budget that others wait for.
            let patience = if part.holds_budget() { LINGER } else { self.stall };
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
