use super::parse::parse;
use super::*;

const SMALL: &str = "description = \"d\"\n[load]\nshape = \"flood\"\npayments = 10\n";

fn read(text: &str, set: &[&str]) -> Result<Scenario, ScenarioError> {
    let set: Vec<_> = set.iter().map(|text| (*text).to_owned()).collect();
    parse("small".to_owned(), text, &set)
}

fn error(text: &str, set: &[&str]) -> String {
    read(text, set).unwrap_err().to_string()
}

#[test]
fn all_that_come_with_the_program_can_be_read() {
    for name in NAMES {
        let scenario = load(name, &[]).unwrap();
        assert_eq!(scenario.name, *name);
        assert!(!scenario.description.is_empty());
    }
    let contest = load("contest", &[]).unwrap();
    assert_eq!(contest.stages.len(), 6);
    let shape = contest.load.as_ref().unwrap().shape(1.0).unwrap();
    let Shape::Users(users) = shape else { panic!("{shape:?}") };
    assert_eq!((users.from, users.to, users.ramp), (1, 550, Duration::from_mins(1)));
    assert_eq!(contest.load.unwrap().amount().unwrap(), Some(Cents::new(1990)));
}

#[test]
fn a_file_is_read_by_its_path_and_settings_take_the_place_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, SMALL).unwrap();
    let set = [
        "load.payments=7".to_owned(),
        "load.amount=1.50".to_owned(),
        "end.patience_s=1".to_owned(),
    ];
    let scenario = load(path.to_str().unwrap(), &set[..1]).unwrap();
    assert_eq!(scenario.name, "mine");
    assert_eq!(scenario.load.unwrap().payments, Some(7));
    let set: Vec<_> = set.iter().map(String::as_str).collect();
    assert!(error(SMALL, &set).contains("amount"), "a number is no text");
    let scenario = read(SMALL, &["load.amount=\"1.50\"", "end.patience_s=1"]).unwrap();
    assert_eq!(scenario.load.unwrap().amount().unwrap(), Some(Cents::new(150)));
    assert!((scenario.end.patience_s - 1.0).abs() < 1e-9);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let text = SMALL.replace("payments", "payment");
    let told = error(&text, &[]);
    assert!(told.contains("line 4") && told.contains("payment"), "{told}");
    for (set, what) in [
        ("load.payments", "load.seconds=10"),
        ("description.a=1", "no settings of its own"),
        ("load.seconds=1", "either"),
        ("load.shape=users", "load.to"),
        ("load.shape=rate", "load.per_second"),
        ("load.amount=\"0.001\"", "load.amount"),
        ("load.duplicates=2", "0.9"),
        ("load.connections=0", "at least 1"),
        ("fees.default=0.12345", "four places"),
        ("floor.share=2.1", "floor.share"),
        ("chaos.rounds=1", "either"),
    ] {
        let told = error(SMALL, &[set]);
        assert!(told.contains(what), "{set}: {told}");
    }
    let told = load("nonsense", &[]).unwrap_err().to_string();
    assert!(told.contains("contest, users, flood"), "{told}");
    assert!(load("/nowhere/a.toml", &[]).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn a_scale_makes_a_load_shorter_but_not_thinner() {
    let users = load("contest", &[]).unwrap().load.unwrap();
    let Shape::Users(users) = users.shape(0.25).unwrap() else { panic!() };
    assert_eq!(
        (users.to, users.ramp, users.duration),
        (550, Duration::from_secs(15), Duration::from_secs(15))
    );
    assert_eq!(users.pause, Duration::from_secs(1));
    let flood = read(SMALL, &[]).unwrap().load.unwrap();
    assert_eq!(
        flood.shape(0.25).unwrap(),
        Shape::Flood { connections: 64, until: Until::Count(3) }
    );
    assert_eq!(
        flood.shape(0.0001).unwrap(),
        Shape::Flood { connections: 64, until: Until::Count(1) }
    );
}
