//! Archives that somebody uploads as an app: what may be in one, and how large.
//! Pure, and without a word of the rest of the house, so that it is fuzzed alone.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

/// The largest code of a version, in bytes: published apps reach 3.3 MB.
pub const CODE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest archive, in bytes, and all it may unpack to: code, UI and a little beside.
pub const ARCHIVE_BYTES_MAX: usize = 16 * 1024 * 1024;
const UNPACKED_BYTES_MAX: u64 = 2 * CODE_BYTES_MAX as u64 + 1024 * 1024;
/// Entries in an archive; two have a meaning.
const ENTRIES_MAX: usize = 64;

/// A version's code as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub code: Vec<u8>,
    pub ui: Option<Vec<u8>>,
}

/// Takes the code out of a gzip tar archive: `app.js` (or `main.js`) and, if
/// there, `ui.js`, all at its root. The error is one sentence for the sender.
pub fn unpack(archive: &[u8]) -> Result<Code, String> {
    let not_read = |error: std::io::Error| format!("the archive cannot be read: {error}");
    // The limit stands on what comes out, so that a small archive cannot become a large one.
    let mut unpacked = GzDecoder::new(archive).take(UNPACKED_BYTES_MAX);
    let mut tar = tar::Archive::new(&mut unpacked);
    let (mut app, mut main, mut ui) = (None, None, None);
    let entries = tar.entries().map_err(not_read)?;
    for (index, entry) in entries.enumerate() {
        if index >= ENTRIES_MAX {
            return Err(format!("the archive has more than {ENTRIES_MAX} entries"));
        }
        let mut entry = entry.map_err(not_read)?;
        let path = entry.path().map_err(not_read)?.into_owned();
        check_path(&path)?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(format!(
                "`{}` in the archive is not a plain file: links and devices are not taken",
                path.display()
            ));
        }
        let place = match path.strip_prefix("./").unwrap_or(&path).to_str() {
            Some("app.js") => &mut app,
            Some("main.js") => &mut main,
            Some("ui.js") => &mut ui,
            _ => continue,
        };
        if entry.size() > CODE_BYTES_MAX as u64 {
            return Err(format!(
                "`{}` has more than {CODE_BYTES_MAX} bytes",
                path.display()
            ));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(not_read)?;
        *place = Some(bytes);
    }
    let code = app
        .or(main)
        .ok_or("the archive has no `app.js` (or `main.js`) at its root")?;
    Ok(Code { code, ui })
}

fn check_path(path: &Path) -> Result<(), String> {
    use std::path::Component;
    let harmless = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().all(harmless) {
        return Ok(());
    }
    Err(format!("`{}` leads out of the archive", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An archive with code and UI in it, as a client makes one.
    fn whole_archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for name in ["app.js", "ui.js", "notes/readme.md"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(5);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, b"12345".as_slice())
                .expect("in memory");
        }
        let gzip = builder.into_inner().expect("in memory");
        gzip.finish().expect("in memory")
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_damaged_archive_is_read_or_refused_and_never_too_much(
            damage in proptest::collection::vec((0usize..4_096, proptest::prelude::any::<u8>()), 1..8),
            inside in proptest::prelude::any::<bool>(),
        ) {
            let whole = whole_archive();
            let mut bytes = if inside {
                // Damage of the tar itself, which the checksum of gzip would hide.
                let mut tar = Vec::new();
                GzDecoder::new(whole.as_slice()).read_to_end(&mut tar).expect("it is whole");
                tar
            } else {
                whole
            };
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if inside {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(&bytes).expect("in memory");
                bytes = gzip.finish().expect("in memory");
            }
            if let Ok(code) = unpack(&bytes) {
                proptest::prop_assert!(code.code.len() <= CODE_BYTES_MAX);
            }
        }
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            // By hand, as the builder refuses names that lead out.
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            tar.append(&header, *bytes).expect("in memory");
        }
        tar.into_inner().expect("tar").finish().expect("gzip")
    }

    #[test]
    fn code_and_ui_are_found_at_the_root() {
        let code = unpack(&archive(&[
            ("./app.js", b"a"),
            ("ui.js", b"u"),
            ("x/app.js", b"no"),
        ]));
        let want = Code {
            code: b"a".to_vec(),
            ui: Some(b"u".to_vec()),
        };
        assert_eq!(code, Ok(want));
        assert_eq!(
            unpack(&archive(&[("main.js", b"m")])).expect("found").code,
            b"m"
        );
    }

    #[test]
    fn what_does_not_belong_in_an_archive_is_named() {
        let says = |bytes: &[u8], word: &str| {
            let sentence = unpack(bytes).expect_err(word);
            assert!(sentence.contains(word), "{sentence}");
        };
        says(&archive(&[("x/app.js", b"a")]), "no `app.js`");
        says(&archive(&[("../app.js", b"a")]), "leads out");
        says(&archive(&[("/app.js", b"a")]), "leads out");
        says(b"not an archive", "cannot be read");
        let many: Vec<_> = (0..=ENTRIES_MAX).map(|_| ("x", b"".as_slice())).collect();
        says(&archive(&many), "entries");
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "app.js", "/etc/passwd")
            .expect("in memory");
        says(
            &tar.into_inner().expect("tar").finish().expect("gzip"),
            "links",
        );
    }

    #[test]
    fn a_small_archive_that_grows_is_cut_off() {
        let zeros = vec![0; CODE_BYTES_MAX + 1];
        let sentence = unpack(&archive(&[("app.js", &zeros)])).expect_err("too large");
        assert!(sentence.contains("more than"), "{sentence}");
        let rest = vec![0; CODE_BYTES_MAX];
        let bomb = archive(&[("a", &rest), ("b", &rest), ("c", &rest), ("app.js", b"a")]);
        assert!(bomb.len() < 1024 * 1024);
        assert!(unpack(&bomb).is_err());
    }
}
