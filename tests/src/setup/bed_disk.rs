//! The read-only disk of the bed: what Dom0 needs to make guests, the same for every run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bed::disk;
use crate::cache::Cache;

/// The image of the disk.
pub fn build(cache: &Cache, guests: &Path, data_image: &Path) -> Result<PathBuf> {
    let inputs = [
        include_bytes!("bed_disk.rs").as_slice(),
        guests.as_os_str().as_encoded_bytes(),
        data_image.as_os_str().as_encoded_bytes(),
    ];
    let entry = cache.entry("bed-disk", "making the bed's disk", &inputs, |work| {
        let content = work.join("content");
        fs::create_dir_all(&content)?;
        for entry in fs::read_dir(guests)? {
            let entry = entry?;
            fs::hard_link(entry.path(), content.join(entry.file_name()))?;
        }
        fs::hard_link(data_image, content.join("data.img"))?;
        disk::from_folder(&content, &work.join("bed.img"))?;
        fs::remove_dir_all(content)?;
        Ok(())
    })?;
    Ok(entry.join("bed.img"))
}
