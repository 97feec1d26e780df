//! Opening files: regular ones only.

use std::fs::{File, FileType, Metadata, OpenOptions, metadata};
use std::io::{Error as IoError, ErrorKind};
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a regular file for reading, and returns what the system knows of it, such as its length.
///
/// Opening a pipe waits for a writer, and a device such as `/dev/zero` never ends, so a path that leads to one of these
/// would hang a run. The check is made on the open file: nothing can be put in its place between the two.
///
/// # Errors
/// [`Error::NotRegular`] for a pipe, a device or a socket; [`Error::Io`] for a folder, and for a file that cannot be
/// opened.
pub fn open_regular(path: &Path) -> Result<(File, Metadata)> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let refuse = |kind| Error::NotRegular { path: path.to_owned(), kind };
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK); // do not wait for a pipe's writer
    let file = match options.open(path) {
        Ok(file) => file,
        // A socket cannot be opened at all, which the system says in a way that nobody understands.
        Err(source) => {
            let kind = metadata(path).ok().and_then(|found| irregular(found.file_type()));
            return Err(kind.map_or_else(|| io(source), refuse));
        }
    };
    let found = file.metadata().map_err(io)?;
    if let Some(kind) = irregular(found.file_type()) {
        return Err(refuse(kind));
    }
    if found.is_dir() {
        return Err(io(IoError::from(ErrorKind::IsADirectory)));
    }
    Ok((file, found))
}

/// The kind of what is neither a file nor a folder, in one stable word.
fn irregular(kind: FileType) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kinds = [
            (kind.is_fifo(), "fifo"),
            (kind.is_char_device(), "character_device"),
            (kind.is_block_device(), "block_device"),
            (kind.is_socket(), "socket"),
        ];
        kinds.into_iter().find_map(|(is, name)| is.then_some(name))
    }
    #[cfg(not(unix))]
    {
        (!kind.is_file() && !kind.is_dir()).then_some("device")
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn kind(path: &Path) -> &'static str {
        match open_regular(path) {
            Err(Error::NotRegular { kind, .. }) => kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = std::env::temp_dir().join(format!("rsprune-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
        // SAFETY: `name` is a string that ends in a zero byte, and lives until the call returns.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(kind(&fifo), "fifo"); // at once, although nobody writes to it
        let link = folder.join("zero.jpg");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert_eq!(kind(&link), "character_device");
        let _listener = UnixListener::bind(folder.join("socket")).unwrap();
        assert_eq!(kind(&folder.join("socket")), "socket");
        let folder_error = open_regular(&folder).unwrap_err();
        assert!(matches!(&folder_error, Error::Io { source, .. } if source.kind() == ErrorKind::IsADirectory));
        let missing = open_regular(&folder.join("missing")).unwrap_err();
        assert!(matches!(&missing, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound));
        std::fs::write(folder.join("file"), b"1234").unwrap();
        assert_eq!(open_regular(&folder.join("file")).unwrap().1.len(), 4);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
