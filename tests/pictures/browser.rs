//! A headless Chromium, driven through chromedriver: just enough of WebDriver to look at a page as a person does.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser of its own, ended when it is dropped.
pub(super) struct Browser {
    driver: Child,
    session: String,
    /// What the browser writes of its own.
    _profile: TempDir,
}

impl Browser {
    /// Starts one; nothing where chromedriver or a browser is not installed.
    pub(super) fn start() -> Option<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let lines = BufReader::new(driver.stdout.take().expect("its output is piped")).lines();
        // `ChromeDriver was started successfully on port 38507.`
        let port = lines.map_while(Result::ok).find_map(|line| {
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok()
        });
        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{}/session", port.expect("chromedriver names its port")),
            _profile: tempfile::tempdir().expect("a folder for its profile"),
        };
        let profile = browser._profile.path().display().to_string();
        let options = json!({ "args": [
            "--headless=new",
            // In a container there may be no user but root, whom the sandbox refuses.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1400,1000",
            format!("--user-data-dir={profile}"),
        ] });
        let asked = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let opened = browser.post("", &asked);
        let Some(id) = opened["sessionId"].as_str() else {
            eprintln!("chromedriver finds no browser that it can drive: {opened}");
            return None;
        };
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    pub(super) fn open(&self, url: &str) {
        let answer = self.post("/url", &json!({ "url": url }));
        assert_eq!(answer, Value::Null, "the page opens");
    }

    /// What a script returns.
    pub(super) fn run(&self, script: &str) -> Value {
        let answer = self.post("/execute/sync", &json!({ "script": script, "args": [] }));
        assert!(answer["error"].is_null(), "{script}: {answer}");
        answer
    }

    /// Texts of the elements that a selector finds.
    pub(super) fn texts(&self, selector: &str) -> Vec<String> {
        let script = format!("return [...document.querySelectorAll({selector:?})].map(it => it.innerText)");
        let texts = self.run(&script);
        texts
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Clicks where the element is, as a mouse does: one that something covers is an error.
    pub(super) fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|it| it.values().next()?.as_str().map(str::to_owned));
        let id = id.unwrap_or_else(|| panic!("{selector}: {found}"));
        let clicked = self.post(&format!("/element/{id}/click"), &json!({}));
        assert_eq!(clicked, Value::Null, "{selector}");
    }

    /// Types keys, wherever the focus is.
    pub(super) fn press(&self, keys: &str) {
        let keys = keys.chars().flat_map(|key| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let actions =
            json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys.collect::<Vec<_>>() }] });
        assert_eq!(self.post("/actions", &actions), Value::Null);
    }

    /// What the page and the browser's own rules wrote to the console since it was asked last.
    pub(super) fn console(&self) -> Vec<Value> {
        self.log("browser")
    }

    /// Addresses of everything that was asked for since this was asked last.
    pub(super) fn requests(&self) -> Vec<String> {
        let events = self.log("performance");
        assert!(!events.is_empty(), "the browser tells what it asks for");
        let events =
            events.iter().filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok());
        events
            .filter(|event| event["message"]["method"] == "Network.requestWillBeSent")
            // The browser's first page is its own.
            .filter(|event| {
                let document = event["message"]["params"]["documentURL"].as_str().unwrap_or_default();
                !document.starts_with("chrome")
            })
            .filter_map(|event| Some(event["message"]["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.post("/se/log", &json!({ "type": kind }));
        entries.as_array().unwrap_or_else(|| panic!("a log of {kind}: {entries}")).clone()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent
            .post(format!("{}{path}", self.session))
            .header("content-type", "application/json")
            .send(body.to_string())
            .expect("chromedriver answers");
        let text = answer.body_mut().read_to_string().expect("an answer is text");
        serde_json::from_str::<Value>(&text).expect("an answer is JSON")["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; chromedriver alone would leave it behind.
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let _ = agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
