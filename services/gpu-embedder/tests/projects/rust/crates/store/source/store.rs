extern crate core_of_mill as milling;

mod bin;
mod generated {
    include!(concat!(env!("OUT_DIR"), "/tables.rs"));
}

use bin::Bin;
use log::info;
use milling::grain::Grain;
use ::mill_pipes::Pipe;

pub struct Store<G: Grain> {
    bins: Vec<Bin<G>>,
    pipe: Pipe,
}

impl<G: Grain> Store<G> {
    pub fn get(&self, number: usize) -> Option<&Bin<G>> {
        info!("{}", number);
        self.bins.get(number)
    }
}
