//! The line between an instance and the store: a Unix socket that wakes a process only when there is
//! something to read.
//!
//! A socket that is watched for room to write tells of it each time the other end has read, and wakes
//! who wrote for nothing. So it is watched for that only while a write is held up.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

/// What reads a line. To tokio it is a pipe, because a pipe is watched in one direction only.
pub type LineReader = pipe::Receiver;

/// What writes a line.
#[derive(Debug)]
pub struct LineWriter {
    stream: UnixStream,
}

/// The two directions of this end of a line.
///
/// # Errors
/// The operating system refuses another descriptor, or to watch it.
pub fn split(stream: tokio::net::UnixStream) -> io::Result<(LineReader, LineWriter)> {
    let stream = stream.into_std()?;
    let reader = LineReader::from_owned_fd_unchecked(stream.try_clone()?.into())?;
    Ok((reader, LineWriter { stream }))
}

impl LineWriter {
    /// Writes all of it, however long the other end does not read.
    ///
    /// # Errors
    /// The line breaks.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            match self.stream.write(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // A descriptor of its own is watched, for as long as it takes.
                    let watched = self.stream.try_clone()?.into();
                    return pipe::Sender::from_owned_fd_unchecked(watched)?.write_all(left).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net;

    use super::*;
    use crate::protocol::{FrameBuffer, Request};

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    struct Line {
        reader: LineReader,
        writer: LineWriter,
    }

    fn lines() -> (Line, Line) {
        let (one, other) = net::UnixStream::pair().unwrap();
        let [one, other] = [one, other].map(|stream| {
            let (reader, writer) = split(stream).unwrap();
            Line { reader, writer }
        });
        (one, other)
    }

    fn frames(count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for serial in 0..count {
            Request::PurgePrepared { serial: u64::from(serial) }.encode(serial + 1, &mut bytes);
        }
        bytes
    }

    /// Reads so many frames, and checks that they come whole and in their order.
    async fn hear(reader: &mut LineReader, count: u32) {
        let (mut buffer, mut heard) = (FrameBuffer::default(), 0);
        while heard < count {
            assert!(buffer.fill(reader).await.unwrap());
            while let Some((number, request)) = buffer.next_request().unwrap() {
                assert_eq!(request, Request::PurgePrepared { serial: u64::from(heard) });
                heard += 1;
                assert_eq!(number, heard);
            }
        }
        assert_eq!(heard, count);
    }

    #[test]
    fn what_one_end_says_the_other_hears() {
        block_on(async {
            let (mut one, mut other) = lines();
            for _ in 0..3 {
                one.writer.write_all(&frames(2)).await.unwrap();
                hear(&mut other.reader, 2).await;
                other.writer.write_all(&frames(1)).await.unwrap();
                hear(&mut one.reader, 1).await;
            }
        });
    }

    #[test]
    fn more_than_fits_is_written_as_the_other_end_reads() {
        const COUNT: u32 = 100_000;
        block_on(async {
            let (mut one, mut other) = lines();
            let bytes = frames(COUNT);
            let (written, ()) =
                tokio::join!(one.writer.write_all(&bytes), hear(&mut other.reader, COUNT));
            written.unwrap();
        });
    }

    #[test]
    fn both_ends_can_write_more_than_fits_at_the_same_time() {
        const COUNT: u32 = 50_000;
        block_on(async {
            let (mut one, mut other) = lines();
            let bytes = frames(COUNT);
            let all = tokio::join!(
                one.writer.write_all(&bytes),
                other.writer.write_all(&bytes),
                hear(&mut one.reader, COUNT),
                hear(&mut other.reader, COUNT)
            );
            all.0.unwrap();
            all.1.unwrap();
        });
    }

    #[test]
    fn the_end_is_told_after_all_that_was_said() {
        block_on(async {
            let (mut one, mut other) = lines();
            one.writer.write_all(&frames(3)).await.unwrap();
            drop(one);
            hear(&mut other.reader, 3).await;
            assert!(!FrameBuffer::default().fill(&mut other.reader).await.unwrap());
            assert!(other.writer.write_all(&frames(1)).await.is_err());
        });
    }

    #[test]
    fn an_end_that_comes_later_is_told_as_well() {
        block_on(async {
            let (mut one, mut other) = lines();
            one.writer.write_all(&frames(1)).await.unwrap();
            hear(&mut other.reader, 1).await;
            let closing = async {
                tokio::task::yield_now().await;
                drop(one);
            };
            let mut buffer = FrameBuffer::default();
            let (filled, ()) = tokio::join!(buffer.fill(&mut other.reader), closing);
            assert!(!filled.unwrap());
        });
    }
}
