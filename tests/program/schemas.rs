//! What a program rests on: every command's JSON is of a schema that is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use verikd::commands::{COMMANDS, Schema, find};
use verikd::debugger::SessionStats;
use verikd::shell::{schema_of, schema_of_beside, schema_of_failure};

use crate::program::Setup;

/// Lines that are answered with every form there is, and some that are not answered.
const LINES: &str = "
!verifier
!verifier 3
!verifier 3 nosuch.sys
!verifier 7cf
!verifier -?
!verifier 4
!verifier 8
!verifier 80
!verifier 80 fffffa8005400000
!verifier 400
!leaks myfault.sys
!poolused 2
!poolused 1 Leak
!poolused 6
!poolfind -k Leak
!pool -k fffffa8005400000
!pooltag Leak
!vm 1
.verifierformat new
.maxstop
lm
lmv m nt
lmf
x nt!VfPool*
x nt!NoSuch*
ln nt!VfPoolTraces
ln 1000
dt nt!_VF*
dt nt!_LIST_ENTRY
dt -r nt!_LDR_DATA_TABLE_ENTRY poi(nt!PsLoadedModuleList)
dt nt!_NO_SUCH
da nt!NtBuildLab
d
db 1000
dc nt
dd nt
dda nt L2
ddp nt L2
dds nt L4
ddu nt L2
dl nt!PsLoadedModuleList 2
dlb nt!PsLoadedModuleList 2
dpa nt L2
dpp nt L2
dpu nt L2
dqa nt L2
dqp nt L2
dqu nt L2
dp nt
dps @rsp L8
dq nt
dqs nt L4
ds poi(nt!PsLoadedModuleList)+58
dS poi(nt!PsLoadedModuleList)+58
du nt L8
dw nt
s -a nt Lf000 \"7601\"
s -[1]b nt L100 4d 5a
r
r rip, zf
r rax=@rax
ea fffffa8005400000 \"a\"
eb fffffa8005400000 1 2
ed fffffa8005400000 'kaeL'
ep fffffa8005400000 1
eq fffffa8005400000 1
eu fffffa8005400000 \"a\"
ew fffffa8005400000 1
eza fffffa8005400000 \"a\"
ezu fffffa8005400000 \"a\"
.writemem MEMORY nt L10
.allow_write
~1s
k
kb 2
kc
kf
kn
kv
u nt!DbgBreakPointWithStatus
ub nt!DbgBreakPointWithStatus+2
uf nt!DbgBreakPointWithStatus
k = 1000 1000
? nt
? 1/0
.formats 1c407e62
.echo a text
vertarget
version
.bugcheck
.time
.echotime
.lastevent
!running -i
.logopen LOG
.logfile
.logclose
.logappend LOG
$<EMPTY
.more
.sympath
.sympath+ /nowhere at all
!sym
.reload
.reload /f nosuch
.help
.help lm
.kdstats
bp nt!KeBugCheckEx
ba w4 nt
bu nosuch!x
bl
bd 0
be 0
bc *
nosuch
.if (1) { g }
.symfix
q
";

/// Lets the machine run, which the others want in one stop.
const HITS: &str = "!poolhit Leak -n 1";

#[test]
fn every_command_answers_with_one_object_of_a_committed_schema() {
    let setup = Setup::new();
    let script = setup.folder.path().join("script");
    let (log, empty) = (setup.folder.path().join("log"), setup.folder.path().join("empty"));
    std::fs::write(&empty, "* nothing\n").unwrap();
    let memory = setup.folder.path().join("memory");
    let lines = LINES.replace("MEMORY", &memory.display().to_string());
    let lines =
        lines.replace("LOG", &log.display().to_string()).replace("EMPTY", &empty.display().to_string());
    std::fs::write(&script, &lines).unwrap();
    let _target = setup.target(&[]);
    let mut objects = Vec::new();
    let dump = format!(".dump /used {}", setup.folder.path().join("used.dmp").display());
    for how in [
        ["-cf", script.to_str().unwrap()],
        ["-c", &dump],
        ["-c", HITS],
        ["-c", ".restart"],
        ["-c", ".reboot"],
        ["-c", "g"],
        ["-c", "t"],
        ["-c", "p"],
        ["-c", "gu"],
    ] {
        let output = setup.debug(&["-b", "--write", "--json", how[0], how[1]]);
        objects.extend(output.out.lines().map(|line| serde_json::from_str::<Value>(line).expect(line)));
    }
    let typed = lines.lines().filter(|line| !line.is_empty());
    let typed = typed.chain([dump.as_str(), HITS, ".restart", ".reboot", "g", "t", "p", "gu"]);
    let commands = objects.iter().map(|line| line["command"].as_str().unwrap());
    let (stops, commands): (Vec<&str>, Vec<&str>) = commands.partition(|it| *it == "(stop)");
    assert!(stops.len() >= ["t", "p"].len(), "one where each step ends: {stops:?}");
    assert_eq!(commands, typed.collect::<Vec<_>>(), "one object a command, in order");
    let beside = setup.debug(&["-b", "--json", "--stats", "-c", "r rip"]);
    let beside: Vec<Value> = beside.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of: Vec<&str> = beside.iter().map(|line| line["command"].as_str().unwrap()).collect();
    assert_eq!(of, ["r rip", "(stop)", "(resume)"], "what was paid beside commands has their form");

    let schemas: BTreeMap<String, Value> = committed()
        .into_values()
        .map(|schema| (schema["title"].as_str().unwrap().to_owned(), schema))
        .collect();
    let mut seen = BTreeSet::new();
    for line in objects.iter().chain(&beside) {
        let name = line["schema"].as_str().unwrap();
        let schema = schemas.get(name).unwrap_or_else(|| panic!("no schema is called {name}"));
        let validator = jsonschema::validator_for(schema).unwrap();
        let wrong: Vec<String> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}\n{line:#}", line["command"]);
        seen.insert(name);
        // A specification names what its command is answered with.
        if let (Ok((spec, _)), false) = (find(line["command"].as_str().unwrap()), line["answer"].is_null()) {
            let is_named = spec.answers.iter().any(|it| name.contains(&format!("/{}/", it.name)));
            assert!(is_named || spec.names[0] == ".kdstats", "{} is answered with {name}", spec.names[0]);
        }
    }
    let tried =
        |names: &[&str]| commands.iter().any(|line| find(line).is_ok_and(|(spec, _)| spec.names == names));
    let untried: Vec<_> =
        COMMANDS.iter().filter(|spec| !tried(spec.names)).map(|spec| spec.names[0]).collect();
    assert_eq!(untried, ["qd"], "it is q by another name");
    let unseen: Vec<_> = schemas.keys().filter(|name| !seen.contains(name.as_str())).collect();
    assert!(unseen.is_empty(), "never answered: {unseen:?}");
}

#[test]
fn the_committed_schemas_are_those_of_the_program() {
    let mut expected: BTreeMap<String, Value> =
        every_schema().map(|it| (it.name.to_owned(), schema_of(it))).collect();
    expected.insert("failed".to_owned(), schema_of_failure());
    expected.insert("beside".to_owned(), schema_of_beside());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        // Those of files, in a folder beside them, are written elsewhere.
        for name in committed().keys() {
            std::fs::remove_file(folder().join(format!("{name}.json"))).unwrap();
        }
        for (name, schema) in &expected {
            let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
            std::fs::write(folder().join(format!("{name}.json")), text).unwrap();
        }
    }
    let committed = committed();
    assert_eq!(committed.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, schema) in &expected {
        assert!(committed[name] == *schema, "schemas/{name}.json is old; UPDATE_EXPECTED=1 rewrites it");
    }
}

fn every_schema() -> impl Iterator<Item = Schema> {
    COMMANDS.iter().flat_map(|spec| spec.answers).copied().chain([SessionStats::SCHEMA])
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

/// The schemas in the tree, by the names of their files.
fn committed() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    // A folder beside them has the forms of files.
    files
        .filter(|path| path.is_file())
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect()
}
