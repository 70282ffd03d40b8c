//! Archived segments: the bytes of a sealed one in a gzip file (RFC 1952), which any `gunzip` reads.
//!
//! The header says how long the segment is (extra field `BV`, u64 little-endian) and is otherwise always the same, so
//! there is one way to write it. Reading decompresses as it goes; memory is one frame.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use crate::fs::{File, Fs, Open};

/// What is read or written at once.
const BLOCK: usize = 256 << 10;
/// Bytes of the header: 10, and an extra field of 12 behind its length.
const HEADER: usize = 24;
/// Of zlib's levels: most of the gain at a third of the time.
const LEVEL: u32 = 4;

fn header(len: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    // Magic, deflate, FEXTRA; no time, no hint, no system.
    let (head, size) = bytes.split_at_mut(HEADER - 8);
    head.copy_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 12, 0, b'B', b'V', 8, 0]);
    size.copy_from_slice(&len.to_le_bytes());
    bytes
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// A file from its start to its end.
#[derive(Debug)]
struct Input {
    file: Box<dyn File>,
    at: u64,
    len: u64,
}

impl Input {
    fn new(file: Box<dyn File>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, at: 0, len })
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let take = buf.len().min(usize::try_from(self.len - self.at).unwrap_or(buf.len()));
        let place = buf.get_mut(..take).unwrap_or_default();
        self.file.read_exact_at(self.at, place)?;
        self.at += take as u64;
        Ok(take)
    }
}

/// A file that is written from its start.
#[derive(Debug)]
struct Output {
    file: Box<dyn File>,
    at: u64,
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(self.at, buf)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Window {
    decoder: GzDecoder<BufReader<Input>>,
    /// Decompressed and still wanted, from `from` on; where that is in the segment.
    bytes: Vec<u8>,
    from: usize,
    base: u64,
    /// Everything was decompressed, and its checksum and end are right.
    ended: bool,
}

/// An archived segment as the file that it was. It is read forwards only.
pub(super) struct Archived {
    len: u64,
    window: Mutex<Window>,
    plain: PathBuf,
}

impl std::fmt::Debug for Archived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archived").field("path", &self.plain).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Archived {
    /// Opens one; `None` if the file does not begin as one.
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> io::Result<Option<Self>> {
        let file = fs.open(path, Open::Read)?;
        let mut found = [0; HEADER];
        match file.read_exact_at(0, &mut found) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let size = found.last_chunk::<8>().copied().unwrap_or_default();
        let len = u64::from_le_bytes(size);
        if found != header(len) {
            return Ok(None);
        }
        let decoder = GzDecoder::new(BufReader::with_capacity(BLOCK, Input::new(file)?));
        let window = Mutex::new(Window { decoder, bytes: Vec::new(), from: 0, base: 0, ended: false });
        Ok(Some(Self { len, window, plain: path.to_owned() }))
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Decompresses some more.
    fn more(&mut self, len: u64) -> io::Result<()> {
        // What is behind is let go when it is more than what is ahead.
        if self.from > BLOCK.max(self.bytes.len() - self.from) {
            self.bytes.drain(..self.from);
            self.base += self.from as u64;
            self.from = 0;
        }
        let have = self.bytes.len();
        self.bytes.resize(have + BLOCK, 0);
        let got = self.decoder.read(self.bytes.get_mut(have..).unwrap_or_default());
        self.bytes.truncate(have + got.as_ref().map_or(0, |got| *got));
        let got = got.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(),
            _ => error,
        })?;
        let end = self.base + self.bytes.len() as u64;
        if end > len || (got == 0 && end < len) {
            return Err(damaged());
        }
        if got == 0 {
            // The decoder has compared the checksum. Nothing may follow.
            let rest = self.decoder.get_mut();
            self.ended = rest.fill_buf()?.is_empty();
            return if self.ended { Ok(()) } else { Err(damaged()) };
        }
        Ok(())
    }
}

impl File for Archived {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len).ok_or_else(damaged)?;
        let mut window = self.window();
        // The last bytes are given only when the checksum over all is right.
        while window.base + (window.bytes.len() as u64) < end || (end == self.len && !window.ended) {
            if let Some(skip) = offset.checked_sub(window.base) {
                window.from = usize::try_from(skip).unwrap_or(usize::MAX).min(window.bytes.len());
            }
            window.more(self.len)?;
        }
        let at = offset.checked_sub(window.base).and_then(|at| usize::try_from(at).ok());
        let found = at.and_then(|at| window.bytes.get(at..at + buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn write_all_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
}

/// Stays below half of a processor: after each block it rests for as long as that took.
struct Pace(Instant);

impl Pace {
    fn rest(&mut self) {
        std::thread::sleep(self.0.elapsed().min(Duration::from_millis(50)));
        self.0 = Instant::now();
    }
}

/// Writes a segment's archive, durably: aside, synced, read again and compared with the segment, renamed, its directory
/// synced. `go_on` is asked between blocks.
///
/// # Errors
/// As the operating system reports; [`io::ErrorKind::InvalidData`] if what was written does not read as the segment;
/// [`io::ErrorKind::Interrupted`] if it is not to go on.
pub(super) fn write(fs: &dyn Fs, segment: &Path, archive: &Path, go_on: &dyn Fn() -> bool) -> io::Result<()> {
    let dir = archive.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut aside = archive.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    if fs.exists(&aside) {
        fs.remove(&aside)?;
    }
    let mut from = Input::new(fs.open(segment, Open::Read)?)?;
    let (head, extra) = (header(from.len), 12);
    let extra = head.get(HEADER - extra..).unwrap_or_default().to_vec();
    let out = Output { file: fs.open(&aside, Open::CreateNew)?, at: 0 };
    let builder = GzBuilder::new().mtime(0).operating_system(255).extra(extra);
    let mut encoder: GzEncoder<Output> = builder.write(out, Compression::new(LEVEL));
    let mut block = vec![0; BLOCK];
    let mut pace = Pace(Instant::now());
    loop {
        let got = from.read(&mut block)?;
        if got == 0 {
            break;
        }
        encoder.write_all(block.get(..got).unwrap_or_default())?;
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        pace.rest();
    }
    encoder.finish()?.file.sync_data()?;
    if !holds(fs, segment, &aside, go_on)? {
        return Err(damaged());
    }
    fs.rename(&aside, archive)?;
    fs.sync_dir(dir)
}

/// True if the archive is that of the segment, byte for byte.
///
/// # Errors
/// As the operating system reports; [`io::ErrorKind::Interrupted`] if it is not to go on.
pub(super) fn holds(fs: &dyn Fs, segment: &Path, archive: &Path, go_on: &dyn Fn() -> bool) -> io::Result<bool> {
    let mut from = Input::new(fs.open(segment, Open::Read)?)?;
    let Some(archived) = Archived::open(fs, archive)?.filter(|archived| archived.len == from.len) else {
        return Ok(false);
    };
    let (mut plain, mut again) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut pace = Pace(Instant::now());
    loop {
        let at = from.at;
        let got = from.read(&mut plain)?;
        if got == 0 {
            return Ok(true);
        }
        let again = again.get_mut(..got).unwrap_or_default();
        match archived.read_exact_at(at, again) {
            Ok(()) if plain.starts_with(again) => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
            Err(error) => return Err(error),
        }
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        pace.rest();
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
