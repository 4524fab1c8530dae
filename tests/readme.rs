//! The README's terminal session, typed into a running quickstart.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    reason = "a session that can't be played has failed"
)]

mod support;

use support::{folder::Folder, http1, process::ExampleProcess};

const README: &str = include_str!("../README.md");

#[tokio::test]
async fn the_quickstart_answers_what_the_readme_says() {
    let folder = Folder::new("readme");
    let quickstart = ExampleProcess::start_in("quickstart", &folder.0);
    let client = http1();
    let session = between(README, "```console\n", "```");
    let mut commands = 0;
    for exchange in session.split("$ curl ").skip(1) {
        let (command, expected) = exchange.split_once('\n').unwrap();
        let command = command
            .replace("${READER}", &quickstart.value("reader"))
            .replace("$READER", &quickstart.value("reader"))
            .replace("$WRITER", &quickstart.value("writer"))
            .replace("http://127.0.0.1:3000", &quickstart.url());
        let answer = curl(&client, &command).await;
        assert_eq!(
            masked(&answer),
            masked(expected.trim_end()),
            "curl {command}"
        );
        commands += 1;
    }
    assert!(commands >= 5, "the README shows only {commands} commands");
    quickstart.stop();
}

/// Does what `curl` would do with these arguments, of which the README uses few.
async fn curl(client: &reqwest::Client, command: &str) -> String {
    let mut url = None;
    let mut headers = Vec::new();
    let mut json = None;
    let mut words = words(command).into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" => {}
            "-H" => headers.push(words.next().unwrap()),
            "--json" => json = words.next(),
            other => {
                assert!(!other.starts_with('-'), "this test doesn't know `{other}`");
                url = Some(word);
            }
        }
    }
    let url = url.unwrap();
    let mut request = match json {
        Some(body) => client
            .post(url)
            .header("content-type", "application/json")
            .body(body),
        None => client.get(url),
    };
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.send().await.unwrap().text().await.unwrap()
}

/// The words of a command line with single and double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for char in line.chars() {
        match (char, quote) {
            ('"' | '\'', None) => quote = Some(char),
            (_, Some(open)) if char == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().unwrap().push(char),
        }
    }
    words
}

/// The text with all key ids alike.
fn masked(text: &str) -> String {
    let mut parts = text.split("key_");
    let mut masked = parts.next().unwrap().to_owned();
    for part in parts {
        let id = part
            .chars()
            .take_while(|char| char.is_alphanumeric() || "-_".contains(*char));
        let len = id.count();
        let rest = if len == 32 { &part[len..] } else { part };
        masked.push_str("key_");
        masked.push_str(rest);
    }
    masked
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    text.split_once(open)
        .unwrap()
        .1
        .split_once(close)
        .unwrap()
        .0
}
