//! A body on its way into an upload session.

use bytes::{Bytes, BytesMut};
use http::header;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use yadokari_catalog::UploadWriter;

use super::call::Call;
use super::failure::Failure;
use super::intake::{self, BodyError, Intake};
use super::request;
use crate::config::Limits;
use crate::oci::range;
use crate::oci::{ApiError, Code};
use crate::registry::{About, explain};

/// A body on its way to the store. Dropped with something left of it, it is drained, so that the
/// client reads why.
pub struct Source {
    intake: Option<Intake>,
    chunk: Option<range::Chunk>,
    limits: Limits,
    received: Counter,
    waits: bool,
}

/// A writer that has taken all that came, and why no more came.
pub struct Poured {
    writer: UploadWriter,
    broken: Option<Failure>,
}

impl Poured {
    /// The writer, and why no more came.
    pub fn parts(self) -> (UploadWriter, Option<Failure>) {
        (self.writer, self.broken)
    }

    /// The writer, if everything came.
    ///
    /// # Errors
    /// Why not.
    pub fn whole(self) -> Result<UploadWriter, Failure> {
        self.broken.map_or(Ok(self.writer), Err)
    }
}

impl Source {
    /// Of a request's body; `chunk` is what it says of itself.
    ///
    /// # Errors
    /// 413 when it says that it is too long.
    pub fn new(call: &Call, body: Incoming, chunk: Option<range::Chunk>) -> Result<Self, Failure> {
        let app = &call.app;
        let limits = app.config.limits.clone();
        let length = request::content_length(&call.parts.headers);
        if length.is_some_and(|length| length > limits.blob_bytes) {
            intake::drain(body, &limits);
            let message = format!("a blob may have {} bytes", limits.blob_bytes);
            return Err(ApiError::with(Code::SizeInvalid, message).status(413).into());
        }
        let max = chunk.map_or(limits.blob_bytes, |chunk| chunk.len);
        let intake = Intake::new(body, app.budget.clone(), &limits, max);
        let waits = call.parts.headers.contains_key(header::EXPECT);
        let received = app.metrics.received.clone();
        Ok(Self { intake: Some(intake), chunk, limits, received, waits })
    }

    /// How many bytes will come, where that is known.
    pub fn expected(&self, call: &Call) -> Option<u64> {
        let length = request::content_length(&call.parts.headers);
        length.or(self.chunk.map(|chunk| chunk.len))
    }

    /// All of a small body.
    ///
    /// # Errors
    /// What became of it.
    pub async fn small(&mut self) -> Result<Bytes, Failure> {
        let mut all = BytesMut::new();
        while let Some(part) = self.next().await? {
            part.iter().for_each(|block| all.extend_from_slice(block));
        }
        Ok(all.freeze())
    }

    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Failure> {
        let Some(intake) = &mut self.intake else { return Ok(None) };
        match intake.next().await {
            Ok(part) => Ok(part),
            Err(error) => {
                // Only a client that sends too much is still there to read on.
                if !matches!(error, BodyError::TooLong(_)) {
                    self.intake = None;
                }
                Err(broken(error))
            }
        }
    }

    /// Writes all that comes. A body that breaks off is no error here: what came counts.
    ///
    /// # Errors
    /// What the catalogue says.
    pub async fn pour(&mut self, mut writer: UploadWriter) -> Result<Poured, Failure> {
        let began = writer.position();
        loop {
            match self.next().await {
                Ok(Some(part)) => {
                    self.received.inc_by(part.iter().map(|block| block.len() as u64).sum());
                    writer
                        .write_blocks(part)
                        .await
                        .map_err(|error| explain(About::Upload, error))?;
                }
                Ok(None) => break,
                Err(failure) => return Ok(Poured { writer, broken: Some(failure) }),
            }
        }
        self.intake = None;
        let came = writer.position() - began;
        let short = self.chunk.is_some_and(|chunk| chunk.len != came);
        let broken = short.then(|| ApiError::new(Code::SizeInvalid).into());
        Ok(Poured { writer, broken })
    }

    /// An error that ends this body, which is drained then.
    pub fn refuse(self, failure: Failure) -> Failure {
        drop(self);
        failure
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(intake) = self.intake.take()
            && (!self.waits || intake.received() > 0)
        {
            intake::drain(intake.into_body(), &self.limits);
        }
    }
}

fn broken(error: BodyError) -> Failure {
    let status = match &error {
        BodyError::Broken(_) => 400,
        BodyError::Stalled(_) | BodyError::TooSlow(_) => 408,
        BodyError::TooLong(_) => 413,
    };
    let code = if status == 413 { Code::SizeInvalid } else { Code::BlobUploadInvalid };
    ApiError::with(code, error.to_string()).status(status).because(error).into()
}
