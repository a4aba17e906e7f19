//! One request of the kernel's: who asks, for which inode, with which arguments.
//!
//! Arguments come one after the other: structures, names that end with a NUL, bytes to the end.

use std::sync::Arc;

use bytes::Bytes;
use zerocopy::FromBytes;

use super::abi::{InHeader, WriteIn};
use super::device::Device;
use super::reply::Reply;
use crate::home::{ErrorKind, Name, Result};
use crate::view::Who;

/// A request that is being served. It is answered once, by who takes the [`Reply`] out.
#[derive(Debug)]
pub struct Call<'a> {
    header: InHeader,
    /// The rest of the request's arguments.
    rest: &'a [u8],
    data: Option<Bytes>,
    reply: Option<Reply>,
}

impl<'a> Call<'a> {
    /// A request as it was read from `device`, with its header.
    pub fn new(device: &Arc<Device>, header: InHeader, request: &'a [u8]) -> Self {
        let reply = Some(Reply::new(Arc::clone(device), header.unique));
        let rest = request.get(size_of::<InHeader>()..).unwrap_or_default();
        Self { header, rest, data: None, reply }
    }

    /// A WRITE whose data was not copied out of the buffer that it was read into: `request` ends
    /// where it begins.
    pub fn with_data(
        device: &Arc<Device>,
        header: InHeader,
        request: &'a [u8],
        data: Bytes,
    ) -> Self {
        Self { data: Some(data), ..Self::new(device, header, request) }
    }

    /// What is asked for.
    pub fn opcode(&self) -> u32 {
        self.header.opcode
    }

    /// What the kernel calls it.
    pub fn unique(&self) -> u64 {
        self.header.unique
    }

    /// The inode that it is for.
    pub fn number(&self) -> u64 {
        self.header.nodeid
    }

    /// Who asks.
    pub fn who(&self) -> Who {
        Who { uid: self.header.uid, gid: self.header.gid, tid: self.header.pid }
    }

    /// The answer that is waited for.
    ///
    /// # Panics
    /// Where it was taken before.
    pub fn reply(&mut self) -> Reply {
        self.reply.take().expect("a request is answered once")
    }

    /// Answers with `errno` where nothing was answered yet.
    pub fn fail(&mut self, errno: i32) {
        if let Some(reply) = self.reply.take() {
            reply.error(errno);
        }
    }

    /// The next argument.
    ///
    /// # Errors
    /// `Invalid` where the request is too short for it.
    pub fn arg<T: FromBytes>(&mut self) -> Result<T> {
        let (arg, rest) = T::read_from_prefix(self.rest).map_err(|_| ErrorKind::Invalid)?;
        self.rest = rest;
        Ok(arg)
    }

    /// The next string, without its NUL.
    ///
    /// # Errors
    /// `Invalid` where there is none.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(ErrorKind::Invalid)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// The next string as the name of a directory's entry.
    ///
    /// # Errors
    /// `Invalid` where there is none; those of [`Name::new`].
    pub fn name(&mut self) -> Result<Name> {
        Name::new(self.text()?)
    }

    /// `len` bytes that are no argument of their own: data or a value.
    ///
    /// # Errors
    /// `Invalid` where the request has fewer.
    pub fn bytes(&mut self, len: u32) -> Result<Bytes> {
        if let Some(data) = self.data.take() {
            return match data.len() == len as usize {
                true => Ok(data),
                false => Err(ErrorKind::Invalid.into()),
            };
        }
        Ok(Bytes::copy_from_slice(self.rest.get(..len as usize).ok_or(ErrorKind::Invalid)?))
    }
}

/// Where the data of a WRITE begins.
pub const WRITE_DATA_AT: usize = size_of::<InHeader>() + size_of::<WriteIn>();
