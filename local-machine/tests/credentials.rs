//! Credentials for artifacts, on a real machine process and a real HTTP server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use berth_machine::{
    MachineError,
    app::{self, AppRelease, Authorization},
};
use support::{LIMIT, LocalLab, ROOT, WithPath, application, archive, programs_without};

const TOKEN: &str = "hush.4711";

/// The requests that a store has got: the values of their headers `Authorization`, and all command lines of this computer meanwhile.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(Vec<Option<String>>, String)>>);

/// A store of one artifact that asks for credentials. Under `/elsewhere` it redirects to another server.
fn store(artifact: Vec<u8>, wanted: Option<&'static str>, elsewhere: Option<String>, seen: Seen) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &artifact, wanted, elsewhere.as_deref(), &seen);
        }
    });
    url
}

fn answer(mut stream: TcpStream, artifact: &[u8], wanted: Option<&str>, elsewhere: Option<&str>, seen: &Seen) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let given = request.lines().find_map(|line| line.strip_prefix("Authorization: ")).map(str::to_owned);
    let lines = fs::read_dir("/proc").unwrap().flatten().map(|process| fs::read(process.path().join("cmdline")));
    let lines: String = lines.flatten().map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
    let mut seen = seen.0.lock().unwrap();
    seen.0.push(given.clone());
    seen.1.push_str(&lines);
    drop(seen);
    let head = match elsewhere {
        _ if given.as_deref() != wanted => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned(),
        Some(elsewhere) => format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"),
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", artifact.len()),
    };
    let body = if head.contains(" 200 ") { artifact } else { &[] };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_reach_the_store_alone_and_are_on_no_command_line() {
    let lab = LocalLab::start();
    let artifact = archive(&[("run", "#!/bin/sh\nexec sleep 1000\n", true)]);
    let programs = programs_without(&["curl"]);
    let path = programs.path().display().to_string();
    for (tool, revision) in [("curl", "v1"), ("python3", "v2")] {
        let (first, second) = (Seen::default(), Seen::default());
        let there = store(artifact.clone(), None, None, second.clone());
        let url = store(artifact.clone(), Some("Bearer hush.4711"), Some(there), first.clone());
        let authorization = Some(Authorization::bearer(TOKEN).unwrap());
        let release = AppRelease { url, authorization, ..application(revision, artifact.clone()) };
        let deployed = match tool {
            "curl" => app::deploy_app(&lab.machine(), ROOT, &release, LIMIT).await,
            _ => app::deploy_app(&WithPath(lab.machine(), path.clone()), ROOT, &release, LIMIT).await,
        };
        deployed.unwrap();
        let (first, second) = (first.0.lock().unwrap().clone(), second.0.lock().unwrap().clone());
        assert_eq!(first.0, [Some("Bearer hush.4711".to_owned())], "{tool}");
        assert_eq!(second.0, [None], "{tool} tells nobody else");
        assert!(first.1.contains(tool) && !format!("{}{}", first.1, second.1).contains(TOKEN), "{tool}");
    }
    let everything = std::process::Command::new("grep").args(["-rl", TOKEN]).arg(lab.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8(everything.stdout).unwrap(), "", "nothing is left on the machine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_the_credentials_is_named_without_them() {
    let lab = LocalLab::start();
    let artifact = archive(&[("run", "#!/bin/sh\nexec sleep 1000\n", true)]);
    let url = store(artifact.clone(), Some("Basic YW5uOnJpZ2h0"), None, Seen::default());
    let with = |password| AppRelease {
        url: url.clone(),
        authorization: Some(Authorization::basic("ann", password)),
        ..application("v1", artifact.clone())
    };
    let error = app::deploy_app(&lab.machine(), ROOT, &with("wrong"), LIMIT).await.unwrap_err();
    assert!(matches!(&error, MachineError::Download { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(&url) && said.contains("401") && !said.contains("YW5u"), "{said}");
    app::deploy_app(&lab.machine(), ROOT, &with("right"), LIMIT).await.unwrap();
    let programs = programs_without(&["curl", "python3"]);
    let machine = WithPath(lab.machine(), programs.path().display().to_string());
    let other = AppRelease { revision: "v2".into(), ..with("right") };
    let error = app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap_err();
    assert!(error.to_string().ends_with("curl or python3, to download artifacts with credentials"), "{error}");
}
