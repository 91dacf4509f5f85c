//! README and the page of the program show what it does.

use std::collections::BTreeSet;

use super::*;

const README: &str = include_str!("../../README.md");
const PAGE: &str = include_str!("../../src/docs/command_line.md");

/// The directory that README shows.
fn fill_shown(dir: &Path) {
    let broker = open_quiet(dir);
    broker.ensure_topic("emails", TopicConfig::new(2)).unwrap();
    let prices = TopicConfig::new(1).cleanup(logpond::Cleanup::Compact);
    broker.ensure_topic("prices", prices).unwrap();
    let minute = |number: u64| some_time() + Duration::from_secs(60 * number);
    let producer = broker.producer();
    for number in 0..1_500 {
        let (key, value) = (format!("user-{number}"), format!("welcome, user {number}!"));
        let record = Record::to("emails").partition(u32::try_from(number % 2).unwrap());
        producer.send(record.key(&key).value(&value).timestamp(minute(number))).unwrap();
    }
    for price in ["19.99", "17.50"] {
        producer.send(Record::to("prices").key("sku-1").value(price)).unwrap();
    }
    for (group, offsets) in [("audit", [750, 750]), ("mailer", [750, 741])] {
        let mut consumer = broker.consumer(group).subscribe(["emails"]).open().unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        let [first, second] = offsets;
        let offsets = [(tp("emails", 0), first), (tp("emails", 1), second)].into();
        consumer.commit_offsets(&offsets).unwrap();
        consumer.close().unwrap();
    }
    broker.close().unwrap();
}

/// The words of each line. A size depends on the file system, and is left out.
fn words(text: &str) -> Vec<Vec<&str>> {
    let is_size =
        |word: &&str| word.ends_with("iB") && word.starts_with(|it: char| it.is_numeric());
    text.lines()
        .map(|line| line.split_whitespace().filter(|word| !is_size(word)).collect())
        .collect()
}

#[test]
fn the_screen_in_readme_is_what_the_program_prints() {
    let root = temp_dir();
    fill_shown(&root.path().join("data"));
    let screen = README.split("```console\n").nth(1).expect("a screen");
    let screen = screen.split("```").next().unwrap_or_default();
    let commands: Vec<&str> = screen.split("$ ").skip(1).collect();
    assert!(commands.len() > 3, "{screen}");
    for shown in commands {
        let (line, expected) = shown.split_once('\n').unwrap();
        let arguments = line.strip_prefix("logpond ").unwrap();
        let mut command = program();
        let output = command.args(arguments.split(' ')).current_dir(root.path()).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        assert_eq!((output.status.code(), err.unwrap().as_str()), (Some(0), ""), "{line}");
        let out = out.unwrap();
        assert_eq!(words(expected.trim_end()), words(&out), "{line}:\n{out}");
    }
}

/// The first words of the rows of a table below a heading, without the backticks.
fn first_cells(heading: &str) -> Vec<&'static str> {
    let section = PAGE.split(&format!("\n## {heading}\n")).nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split(['`', ' ']).next()).collect()
}

#[test]
fn the_page_has_every_command_and_its_document() {
    let help = run(Path::new("."), "--help").ok();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = commands.lines().filter_map(|line| line.split_whitespace().next());
    let commands: Vec<&str> = commands.filter(|command| *command != "help").collect();
    assert_eq!(commands.len(), 9, "{help}");
    assert_eq!(first_cells("Commands"), commands);
    assert_eq!(first_cells("JSON"), commands);
}

/// Every field of every document, at any depth.
fn fields(json: &serde_json::Value, found: &mut BTreeSet<String>) {
    match json {
        serde_json::Value::Object(object) => {
            found.extend(object.keys().cloned());
            object.values().for_each(|value| fields(value, found));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn the_page_has_every_field_of_the_documents() {
    let dir = sample();
    let copies = temp_dir();
    let copy = copies.path().join("copy");
    let salvage = format!("salvage {{}} {} --json", copy.display());
    let damaged = temp_dir();
    fill_sample(damaged.path());
    fs::remove_dir_all(damaged.path().join("emails/1")).unwrap();
    for (dir, line) in [
        (&dir, "topics {} --json"),
        (&dir, "describe {} emails --json"),
        (&dir, "groups {} --json"),
        (&dir, "lag {} --json"),
        (&dir, "reset {} mailer emails --to 0 --json"),
        (&dir, "produce {} emails --json"),
        (&damaged, "verify {} --json"),
        (&damaged, salvage.as_str()),
        (&dir, "tail {} emails --json --partition 0 --limit 1 --from 0"),
    ] {
        let ran = run_with(dir.path(), line, "one\n");
        let json = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{line}: {ran:?}"));
        let command = line.split(' ').next().unwrap();
        let row = format!("\n| `{command}` | ");
        let row = PAGE.split(&row).nth(1).expect(command).lines().next().unwrap();
        let mut found = BTreeSet::new();
        fields(&json, &mut found);
        assert!(found.len() > 3, "{line}: {found:?}");
        for field in found {
            assert!(row.contains(&format!("`{field}`")), "{command}: {field}");
        }
    }
}
