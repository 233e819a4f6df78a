use std::fs;
use std::os::unix::fs::symlink;

use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

use super::*;

const SEEN_WITHIN: Duration = Duration::from_secs(3);

fn yaml(name: &str) -> String {
    format!(
        "kind: Node\nmetadata: {{name: {name}}}\nstatus: {{addresses: [{{type: InternalIP, address: 10.0.0.1}}]}}\n"
    )
}

fn directory_with_file() -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let path = directory.path().join("nodes.yaml");
    fs::write(&path, yaml("first")).unwrap();
    (directory, path)
}

/// Waits for the change and returns the name of the only node then.
async fn changed_to(file: &mut NodesFile) -> String {
    timeout(SEEN_WITHIN, file.next_change()).await.expect("no change was seen").unwrap();
    read(&file.path).unwrap().remove(0).name
}

async fn assert_quiet(file: &mut NodesFile) {
    let change = timeout(Duration::from_millis(300), file.next_change()).await;
    assert!(change.is_err(), "a change was reported: {change:?}");
}

#[tokio::test]
async fn a_write_in_place_is_seen_once() {
    let (_directory, path) = directory_with_file();
    let mut file = NodesFile::watch(&path).unwrap();
    assert_quiet(&mut file).await;
    fs::write(&path, yaml("second")).unwrap();
    assert_eq!(changed_to(&mut file).await, "second");
    assert_quiet(&mut file).await;
}

#[tokio::test]
async fn a_rename_over_the_file_is_seen_and_other_files_are_not() {
    let (directory, path) = directory_with_file();
    let mut file = NodesFile::watch(&path).unwrap();
    let temporary = directory.path().join("nodes.yaml.tmp");
    fs::write(&temporary, yaml("second")).unwrap();
    assert_quiet(&mut file).await;
    fs::rename(&temporary, &path).unwrap();
    assert_eq!(changed_to(&mut file).await, "second");
}

#[tokio::test]
async fn a_config_map_update_is_seen() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    for version in ["..v1", "..v2"] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("nodes.yaml"), yaml(&version[2..])).unwrap();
    }
    symlink("..v1", root.join("..data")).unwrap();
    symlink("..data/nodes.yaml", root.join("nodes.yaml")).unwrap();
    let mut file = NodesFile::watch(&root.join("nodes.yaml")).unwrap();
    assert_eq!(read(&file.path).unwrap()[0].name, "v1");

    symlink("..v2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(changed_to(&mut file).await, "v2");
}

#[tokio::test]
async fn a_symlink_that_is_put_in_place_of_the_file_is_seen() {
    let (directory, path) = directory_with_file();
    let other = directory.path().join("other.yaml");
    fs::write(&other, yaml("second")).unwrap();
    fs::remove_file(&path).unwrap();
    let mut file = NodesFile::watch(&path).unwrap();
    symlink(&other, &path).unwrap();
    assert_eq!(changed_to(&mut file).await, "second");
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_reported_before_it_is_closed() {
    use std::io::Write;
    let directory = tempdir().unwrap();
    let path = directory.path().join("nodes.yaml");
    let mut file = NodesFile::watch(&path).unwrap();
    let mut writer = fs::File::create(&path).unwrap();
    writer.write_all(yaml("first").as_bytes()).unwrap();
    assert_quiet(&mut file).await;
    drop(writer);
    assert_eq!(changed_to(&mut file).await, "first");
}

#[tokio::test]
async fn a_burst_of_writes_is_one_change() {
    let (_directory, path) = directory_with_file();
    let mut file = NodesFile::watch(&path).unwrap();
    for number in 0..20 {
        fs::write(&path, yaml(&format!("n{number}"))).unwrap();
    }
    assert_eq!(changed_to(&mut file).await, "n19");
    assert_quiet(&mut file).await;
}

#[tokio::test]
async fn endless_writes_do_not_hide_the_change_for_ever() {
    let (_directory, path) = directory_with_file();
    let mut file = NodesFile::watch(&path).unwrap();
    let writes = async {
        loop {
            fs::write(&path, yaml("busy")).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = writes => {}
        change = timeout(SEEN_WITHIN, file.next_change()) => change.expect("no change was seen").unwrap(),
    }
}

#[tokio::test]
async fn a_dropped_future_loses_no_change() {
    let (_directory, path) = directory_with_file();
    let mut file = NodesFile::watch(&path).unwrap();
    fs::write(&path, yaml("second")).unwrap();
    // Long enough to take the event from the kernel, too short to report it.
    assert!(timeout(Duration::from_millis(20), file.next_change()).await.is_err());
    assert_eq!(changed_to(&mut file).await, "second");
}

#[tokio::test]
async fn a_directory_that_comes_goes_and_moves_is_followed() {
    let root = tempdir().unwrap();
    let directory = root.path().join("etc");
    let path = directory.join("nodes.yaml");
    let create = |name| {
        fs::create_dir(&directory).unwrap();
        fs::write(&path, yaml(name)).unwrap();
    };
    let mut file = NodesFile::watch(&path).unwrap();
    assert!(matches!(read(&path), Err(FileError::Read { .. })));
    create("first");
    assert_eq!(changed_to(&mut file).await, "first");

    fs::remove_dir_all(&directory).unwrap();
    timeout(SEEN_WITHIN, file.next_change()).await.unwrap().unwrap();
    create("second");
    assert_eq!(changed_to(&mut file).await, "second");

    fs::rename(&directory, root.path().join("moved")).unwrap();
    timeout(SEEN_WITHIN, file.next_change()).await.unwrap().unwrap();
    create("third");
    assert_eq!(changed_to(&mut file).await, "third");
    fs::write(&path, yaml("fourth")).unwrap();
    assert_eq!(changed_to(&mut file).await, "fourth");
}

#[test]
fn a_bad_file_is_an_error_that_names_it_and_says_that_the_old_nodes_stay() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("nodes.yaml");
    let missing = read(&path).unwrap_err().to_string();
    fs::write(&path, "kind: Pod\n").unwrap();
    let malformed = read(&path).unwrap_err().to_string();
    fs::write(&path, [0xff, 0xfe]).unwrap();
    let binary = read(&path).unwrap_err().to_string();
    let not_a_file = read(directory.path()).unwrap_err().to_string();
    for error in [&missing, &malformed, &binary, &not_a_file] {
        assert!(error.contains(directory.path().to_str().unwrap()) && error.contains("stay in use"), "{error}");
    }
    assert!(malformed.contains("document 1: kind Pod"), "{malformed}");
}
