//! Whether the rows that an endpoint answers with are rows of their models.

use backends::operation::Change;

use crate::admit::Schema;

/// Why a row of an answer is none of its model, if one is. It quotes no value.
pub(super) fn misfit(changes: &[Change], schema: Option<&Schema>) -> Option<String> {
    let schema = schema?;
    changes.iter().find_map(|change| {
        let row = change.row.as_ref()?;
        let fault = schema.model(&change.model)?.check_held(row.value()).err()?;
        let place = change
            .operation
            .map_or_else(|| change.model.clone(), |at| format!("operation {at}"));
        Some(format!("the row of {place} breaks its model: {fault}"))
    })
}
