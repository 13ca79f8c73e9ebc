//! What operators install: manifests that a real kube-apiserver takes, a unit that systemd understands, configurations that
//! Curfew takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::watch::deployed;
use crate::world::{installed, repository};

/// Each object of a file, also those in a list.
fn objects(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(deployed("kubernetes").join(file)).unwrap();
    let parts = text.split("\n---\n").map(|part| serde_saphyr::from_str::<Value>(part).unwrap());
    // Before the first mark may stand a comment alone.
    parts
        .filter(Value::is_object)
        .flat_map(|one| one["items"].as_array().cloned().unwrap_or_else(|| vec![one]))
        .collect()
}

/// Applied by themselves, where somebody needs them.
const APART: [&str; 2] = ["monitor.yaml", "watched.yaml"];

fn kustomization() -> Value {
    let text = fs::read_to_string(deployed("kubernetes/kustomization.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn listed() -> Vec<String> {
    let file = kustomization();
    file["resources"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn deployments() -> Vec<Value> {
    objects("processes.yaml")
}

fn curfew(args: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
    let output = command.current_dir(folder.path()).env_clear().args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

/// The server checks each field by its own schema, and changes nothing.
#[tokio::test]
async fn a_real_apiserver_takes_each_object() {
    let cluster = Cluster::bare().await;
    let mut taken = 0;
    for object in listed().iter().map(String::as_str).chain(APART).flat_map(objects) {
        let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        if kind == "ServiceMonitor" {
            // Its schema is the Prometheus Operator's, which is not here: what our rules rest on.
            assert_eq!(object["spec"]["jobLabel"], "app.kubernetes.io/name");
            continue;
        }
        let mut object = object.clone();
        let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        let within = if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = cluster.namespace.as_str().into();
            format!("/namespaces/{}", cluster.namespace)
        } else {
            String::new()
        };
        let plural =
            if kind == "NetworkPolicy" { "networkpolicies".to_owned() } else { format!("{}s", kind.to_lowercase()) };
        let path = format!("{root}{within}/{plural}?dryRun=All&fieldValidation=Strict");
        let (status, answer) = cluster.call(Method::POST, &path, &object).await;
        // What is not of a namespace may be there by another test.
        assert!(
            status == 201 || (status == 409 && within.is_empty()),
            "{kind} {}: {status} {answer}",
            object["metadata"]["name"]
        );
        taken += 1;
    }
    assert!(taken >= 18, "{taken} objects");
    // That it looks at all.
    let mut wrong = deployments()[0].clone();
    wrong["metadata"]["namespace"] = cluster.namespace.as_str().into();
    wrong["spec"]["template"]["spec"]["containers"][0]["lifenessProbe"] = Value::Null;
    let path = format!("/apis/apps/v1/namespaces/{}/deployments?dryRun=All&fieldValidation=Strict", cluster.namespace);
    assert_eq!(cluster.call(Method::POST, &path, &wrong).await.0, 400);
}

#[test]
fn each_part_of_the_work_is_deployed_once_and_by_the_image_s_user() {
    let files =
        fs::read_dir(deployed("kubernetes")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let is_apart = |name: &String| name == "kustomization.yaml" || APART.contains(&name.as_str());
    let files: BTreeSet<String> = files.filter(|name| !is_apart(name)).collect();
    assert_eq!(listed().into_iter().collect::<BTreeSet<_>>(), files);
    let mut roles = Vec::new();
    let dockerfile = fs::read_to_string(deployed("Dockerfile")).unwrap();
    for deployment in deployments() {
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let args: Vec<&str> = container["args"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        let at = args.iter().position(|word| *word == "--role").unwrap();
        roles.extend(args[at + 1].split(',').map(str::to_owned));
        let (code, said) = curfew(&[&args[..], &["--help"]].concat());
        assert_eq!(code, Some(0), "{args:?}: {said}");
        let user = pod["securityContext"]["runAsUser"].as_i64().unwrap();
        assert!(dockerfile.contains(&format!("USER {user}:{user}")), "the image has another user than {user}");
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], deployment["spec"]["template"]["metadata"]["labels"]);
    }
    roles.sort_unstable();
    let mut all = [
        "intake",
        "enforce",
        "deadlines",
        "reconcile",
        "inventory",
        "bind",
        "kubernetes",
        "canary",
        "reach",
        "relay",
        "serve",
    ];
    all.sort_unstable();
    assert_eq!(roles, all);
    let budgets: BTreeSet<String> =
        objects("disruption.yaml").iter().map(|one| one["spec"]["selector"]["matchLabels"].to_string()).collect();
    let labels: BTreeSet<String> =
        deployments().iter().map(|one| one["spec"]["selector"]["matchLabels"].to_string()).collect();
    assert_eq!(budgets, labels);
}

/// What is built and pushed by the document is what the Pods run, and `apply -k` asks for no namespace that it does not make.
#[test]
fn what_is_pushed_is_what_runs_and_no_other_namespace_is_needed() {
    let document = fs::read_to_string(repository().join("docs/deploy.md")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let images = kustomization()["images"].as_array().unwrap().clone();
    for deployment in deployments() {
        let asked = text(&deployment["spec"]["template"]["spec"]["containers"][0]["image"]);
        let (name, tag) = asked.split_once(':').unwrap();
        let image =
            images.iter().find(|image| image["name"] == name).unwrap_or_else(|| panic!("nobody renames {name}"));
        assert_eq!(text(&image["newTag"]), tag);
        let pushed = format!("{}:{tag}", text(&image["newName"]));
        for line in [format!("-t {pushed} ."), format!("docker push {pushed}")] {
            assert!(document.contains(&line), "docs/deploy.md has no `{line}`");
        }
    }
    let all: Vec<Value> = listed().iter().flat_map(|file| objects(file)).collect();
    let made = |name: &Value| all.iter().any(|one| one["kind"] == "Namespace" && one["metadata"]["name"] == *name);
    for object in all.iter().filter(|one| !one["metadata"]["namespace"].is_null()) {
        assert!(made(&object["metadata"]["namespace"]), "{}: who makes its namespace?", object["metadata"]);
    }
}

#[test]
fn the_configurations_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let map = &objects("config.yaml")[0];
    let file = folder.path().join("curfew.yaml");
    fs::write(&file, map["data"]["curfew.yaml"].as_str().unwrap()).unwrap();
    for file in [file, deployed("compose/curfew.yaml")] {
        let (code, said) = curfew(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{}: {said}", file.display());
    }
}

/// The real linter. Its findings that do not hold here are answered in the file itself.
#[test]
fn hadolint_has_nothing_to_say_of_the_image() {
    let hadolint = |file: &Path| {
        let mut command = Command::new(installed("hadolint").join("bin/hadolint"));
        let output = command.args(["--no-color", "--failure-threshold", "style"]).arg(file).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (fine, said) = hadolint(&deployed("Dockerfile"));
    assert!(fine && said.is_empty(), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("Dockerfile");
    fs::write(&wrong, "FROM debian\nRUN cd /tmp\n").unwrap();
    let (fine, said) = hadolint(&wrong);
    assert!(!fine && said.contains("DL3006"), "that it looks at all: {said}");
}

/// As the image does it: what is left runs, is small, and finds the other part.
#[test]
fn debug_information_lies_apart_from_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::copy(assert_cmd::cargo::cargo_bin!("curfew"), at("curfew")).unwrap();
    let whole = fs::metadata(at("curfew")).unwrap().len();
    let dockerfile = fs::read_to_string(deployed("Dockerfile")).unwrap().replace("\\\n", "");
    let step = dockerfile.lines().find_map(|line| line.strip_prefix("RUN objcopy ")).unwrap();
    let step = format!("objcopy {step}").replace("/out/", &format!("{}/", folder.path().display()));
    assert!(Command::new("sh").args(["-ec", &step]).status().unwrap().success(), "{step}");
    let left = fs::metadata(at("curfew")).unwrap().len();
    assert!(left < whole * 2 / 3, "{left} of {whole} bytes are left");
    let version = Command::new(at("curfew")).arg("--version").output().unwrap();
    assert!(version.status.success() && version.stdout.starts_with(b"curfew "), "{version:?}");
    let sections = |file: &str| {
        let output = Command::new("objdump").arg("-h").arg(at(file)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (runs, apart) = (sections("curfew"), sections("curfew.debug"));
    assert!(runs.contains(".gnu_debuglink") && !runs.contains(".debug_line"), "{runs}");
    assert!(apart.contains(".debug_line"), "{apart}");
}

/// What `make sbom` makes, by the schema that CycloneDX publishes. In a folder beside the sources: it writes there.
#[test]
fn the_bill_of_materials_is_as_cyclonedx_says_and_lists_what_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["Cargo.toml", "Cargo.lock", "src", "workers", "benches", "tests", "schemas"] {
        std::os::unix::fs::symlink(repository().join(name), folder.path().join(name)).unwrap();
    }
    let mut command = Command::new(repository().join("tests/servers/servers"));
    installed("sbom");
    let words = ["exec", "cargo", "cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5"];
    command.current_dir(folder.path()).args(words).args(["--override-filename", "curfew.cdx"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let mut bill = read(&folder.path().join("curfew.cdx.json"));

    let schemas = installed("cyclonedx");
    let at = |name: &str| format!("http://cyclonedx.org/schema/{name}.schema.json");
    let others = [("spdx", "spdx.schema.json"), ("jsf-0.82", "jsf-0.82.schemax.json")];
    let known = others.iter().fold(jsonschema::Registry::new(), |known, (name, file)| {
        known.add(at(name), read(&schemas.join(file))).unwrap()
    });
    let known = known.prepare().unwrap();
    let schema = read(&schemas.join("bom-1.5.schema.json"));
    let validator = jsonschema::options().with_registry(&known).build(&schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(&bill).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(wrong, Vec::<String>::new());

    assert_eq!(bill["metadata"]["component"]["name"], "curfew");
    let components = bill["components"].as_array().unwrap();
    for name in ["tokio", "rdkafka", "rusqlite", "sqlx", "vaultrs", "aws-sdk-iam", "kube"] {
        let listed = components.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in it"));
        let lock = fs::read_to_string(repository().join("Cargo.lock")).unwrap();
        let version = listed["version"].as_str().unwrap();
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
        assert!(listed["purl"].is_string() && !listed["licenses"].is_null(), "{listed}");
    }
    bill["components"][0]["type"] = "spell".into();
    assert!(!validator.is_valid(&bill), "that it looks at all");
}

/// Debian's systemd is on the machines of the tests, without being what started them.
#[test]
fn systemd_understands_the_unit_and_its_sandbox() {
    let unit = fs::read_to_string(deployed("systemd/curfew.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/curfew ")).unwrap();
    let words: Vec<&str> = line.split(' ').chain(["--help"]).collect();
    let (code, said) = curfew(&words);
    assert_eq!(code, Some(0), "{line}: {said}");
    // It looks for the program and the user, which are not here.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("curfew.service");
    let here = unit.replace("/usr/local/bin/curfew", "/bin/true").replace("=curfew\nGroup=curfew", "=root\nGroup=root");
    fs::write(&file, here).unwrap();
    let systemd = |args: &[&str]| {
        let output = Command::new("systemd-analyze").args(args).arg(&file).output();
        let output =
            output.expect("systemd-analyze is of Debian's package `systemd`: tests/servers/servers install systemd");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    let (fine, said) = systemd(&["verify", "--man=no"]);
    assert!(fine && said.is_empty(), "{said}");
    // Exposure in tenths of its scale of ten.
    let (fine, said) = systemd(&["security", "--offline=true", "--threshold=20"]);
    assert!(fine, "{said}");
}
