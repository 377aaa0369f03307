pub fn write(folder: &str) {
    std::fs::write(format!("{folder}/tables.rs"), "").unwrap();
}
