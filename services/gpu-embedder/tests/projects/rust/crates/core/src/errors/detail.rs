use super::MillError;

pub fn explain(error: &MillError) -> String {
    format!("{error:?}")
}
