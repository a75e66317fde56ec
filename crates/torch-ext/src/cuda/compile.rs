//! From `.cu` text to machine code: NVRTC, and a cache on disk.

use std::ffi::CString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cudarc::nvrtc::{result as nvrtc, sys};
use tch::Kind;

use super::libraries;
use crate::{Error, Result};

/// A `.cu` text and the constants it is compiled for.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What messages and the cache call it.
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    /// The constants, as definitions of the preprocessor.
    pub(crate) defines: Vec<(&'static str, i64)>,
}

impl Program {
    /// Tells programs apart within this process, where a name has one source.
    pub(crate) fn key(&self) -> String {
        use std::fmt::Write as _;
        let mut key = self.name.to_owned();
        for (name, value) in &self.defines {
            let _ = write!(key, " {name}={value}");
        }
        key
    }
}

/// What `.cu` texts start with: values of the kind that `KIND` names.
macro_rules! with_values {
    ($source:literal) => {
        concat!(include_str!("../cuda/values.cuh"), include_str!($source))
    };
}
pub(crate) use with_values;

/// The number of a kind in `values.cuh`, where it is `KIND`.
pub(crate) fn kind_number(kind: Kind) -> Result<i64> {
    match kind {
        Kind::Float => Ok(0),
        Kind::BFloat16 => Ok(1),
        Kind::Half => Ok(2),
        _ => Err(Error::Cuda(format!("the kernels have no values of kind {kind:?}"))),
    }
}

/// Machine code (CUBIN), or PTX where the compiler is older than the device.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) code: Vec<u8>,
    /// Read from the cache rather than compiled.
    pub(crate) cached: bool,
    pub(crate) time: Duration,
}

/// Compiles for a compute capability, as `(9, 0)`, or reads what an earlier run compiled.
///
/// # Errors
/// When NVRTC can't be opened, or the compiler's messages.
pub(crate) fn compile(program: &Program, capability: (i32, i32)) -> Result<Compiled> {
    compile_in(cache_folder().as_deref(), program, capability)
}

fn compile_in(cache: Option<&Path>, program: &Program, capability: (i32, i32)) -> Result<Compiled> {
    let start = Instant::now();
    libraries::open_nvrtc()?;
    let version = nvrtc_version()?;
    let options = options(program, capability)?;
    let mut hasher = DefaultHasher::new();
    (program.source, &options, version).hash(&mut hasher);
    let file = cache.map(|folder| {
        folder.join(format!(
            "{}-sm{}{}-{:016x}",
            program.name,
            capability.0,
            capability.1,
            hasher.finish()
        ))
    });
    if let Some(code) = file.as_deref().and_then(read_cached) {
        return Ok(Compiled { code, cached: true, time: start.elapsed() });
    }
    let code = run_compiler(program, &options)?;
    if let Some(file) = file {
        // A cache that can't be written costs a second in the next run, and nothing else.
        let _ = write_cached(&file, &code);
    }
    Ok(Compiled { code, cached: false, time: start.elapsed() })
}

/// Version of NVRTC, as `(13, 0)`.
///
/// # Errors
/// When it can't be opened.
pub(crate) fn nvrtc_version() -> Result<(i32, i32)> {
    libraries::open_nvrtc()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is open; both pointers are live.
    check(unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
    Ok((major, minor))
}

fn check(result: sys::nvrtcResult) -> Result<()> {
    result.result().map_err(error)
}

fn error(error: nvrtc::NvrtcError) -> Error {
    Error::Cuda(format!("NVRTC: {error}"))
}

fn options(program: &Program, (major, minor): (i32, i32)) -> Result<Vec<String>> {
    let mut count = 0;
    // SAFETY: the library is open; `count` is live.
    check(unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) })?;
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the array has room for `count` numbers.
    check(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    let wanted = major * 10 + minor;
    let architecture = if known.contains(&wanted) {
        format!("sm_{wanted}")
    } else {
        // A device newer than this compiler: PTX of the newest it knows, which the driver finishes.
        let newest =
            known.iter().copied().filter(|&arch| arch < wanted).max().ok_or_else(|| {
                Error::Cuda(format!(
                    "compute capability {major}.{minor} is older than the kernel compiler supports \
                 ({:?} and newer)",
                    known.iter().min()
                ))
            })?;
        format!("compute_{newest}")
    };
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
    options.extend(program.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    Ok(options)
}

fn run_compiler(program: &Program, options: &[String]) -> Result<Vec<u8>> {
    let source = CString::new(program.source)
        .map_err(|_| Error::Cuda(format!("{}: the source holds a nul byte", program.name)))?;
    let handle = Handle(nvrtc::create_program(&source, None).map_err(error)?);
    // SAFETY: the handle is live until the end of this function.
    if let Err(problem) = unsafe { nvrtc::compile_program(handle.0, options) } {
        // SAFETY: as above.
        let log = unsafe { nvrtc::get_program_log(handle.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|c| c as u8).filter(|&c| c != 0).collect();
        return Err(Error::Cuda(format!(
            "{}: NVRTC: {problem}\n{}",
            program.key(),
            String::from_utf8_lossy(&log)
        )));
    }
    if options.iter().any(|option| option.contains("compute_")) {
        // SAFETY: compiled above.
        let ptx = unsafe { nvrtc::get_ptx(handle.0) }.map_err(error)?;
        return Ok(ptx.into_iter().map(|c| c as u8).collect());
    }
    let mut size = 0;
    // SAFETY: compiled above; `size` is live.
    check(unsafe { sys::nvrtcGetCUBINSize(handle.0, &raw mut size) })?;
    let mut code = vec![0u8; size];
    // SAFETY: the buffer has the size asked for.
    check(unsafe { sys::nvrtcGetCUBIN(handle.0, code.as_mut_ptr().cast()) })?;
    Ok(code)
}

/// Frees the program however its compilation ends.
struct Handle(sys::nvrtcProgram);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_program`, freed once.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

/// `$XDG_CACHE_HOME/richsem/kernels`, or the same under `~/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("richsem/kernels"))
}

/// Hash of the code, which its cache file starts with: a damaged file is compiled anew.
fn seal(code: &[u8]) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    code.hash(&mut hasher);
    hasher.finish().to_le_bytes()
}

fn read_cached(file: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(file).ok()?;
    let (sealed, code) = bytes.split_first_chunk()?;
    (*sealed == seal(code)).then(|| code.to_vec())
}

/// Writes to a file of our own, then renames: two processes at once leave a whole file.
fn write_cached(file: &Path, code: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let partial = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::File::create(&partial).and_then(|mut f| {
        f.write_all(&seal(code))?;
        f.write_all(code)?;
        f.sync_all()
    });
    let result = written.and_then(|()| std::fs::rename(&partial, file));
    if result.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    result
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    const SOURCE: &str = "extern \"C\" __global__ void fill(float* x) { x[threadIdx.x] = VALUE; }";

    fn program(value: i64) -> Program {
        Program { name: "test", source: SOURCE, defines: vec![("VALUE", value)] }
    }

    /// NVRTC needs no GPU, but not every machine has it.
    fn nvrtc_missing() -> bool {
        let missing = libraries::open_nvrtc().err();
        if let Some(problem) = &missing {
            println!("skipped: {problem}");
        }
        missing.is_some()
    }

    /// For the modules that have kernels: each of their variants compiles.
    pub(crate) fn all_compile(programs: impl IntoIterator<Item = Program>) {
        if nvrtc_missing() {
            return;
        }
        for program in programs {
            // Turing to Blackwell; Hopper and what follows have instructions of their own.
            for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)] {
                compile(&program, capability).unwrap();
            }
        }
    }

    #[test]
    fn cached_damaged_and_written_again() {
        if nvrtc_missing() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("torch-ext-cache-{}", std::process::id()));
        let run = |value| compile_in(Some(&folder), &program(value), (9, 0)).unwrap();
        let first = run(1);
        assert!(!first.cached && first.code.starts_with(b"\x7fELF"));
        let second = run(1);
        assert!(second.cached && second.code == first.code);
        assert!(!run(2).cached, "another constant is another program");
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.truncate(bytes.len() / 2);
            std::fs::write(&path, bytes).unwrap();
        }
        let again = run(1);
        assert!(!again.cached && again.code == first.code);
        assert!(run(1).cached);
        std::fs::remove_dir_all(&folder).unwrap();
        let nowhere = compile_in(None, &program(1), (9, 0)).unwrap();
        assert!(!nowhere.cached && nowhere.code == first.code);
    }

    #[test]
    fn a_newer_device_gets_ptx_and_an_ancient_one_a_message() {
        if nvrtc_missing() {
            return;
        }
        let code = compile_in(None, &program(1), (99, 9)).unwrap().code;
        assert!(String::from_utf8_lossy(&code).contains(".target sm_"));
        let error = compile_in(None, &program(1), (1, 0)).unwrap_err().to_string();
        assert!(error.contains("1.0"), "{error}");
    }

    #[test]
    fn the_compiler_s_messages_are_passed_on() {
        if nvrtc_missing() {
            return;
        }
        let wrong =
            Program { name: "wrong", source: "__global__ void f() { oops; }", defines: vec![] };
        let error = compile_in(None, &wrong, (9, 0)).unwrap_err().to_string();
        assert!(error.contains("wrong") && error.contains("oops"), "{error}");
    }
}
