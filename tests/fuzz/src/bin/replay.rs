//! `replay TARGET FOLDER`: what a target does with all inputs of a folder, for whoever counts.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("a target and a folder are wanted".into());
    };
    let target = fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.ok_or("there is no such target")?;
    for file in std::fs::read_dir(folder)? {
        target(&std::fs::read(file?.path())?);
    }
    Ok(())
}
