//! Participants as people write them: `user:ada`.

use proto::v1;

/// Reads `kind:id`.
pub(in crate::cli) fn participant(text: &str) -> Result<v1::Participant, String> {
    let rule = || format!("`{text}` is not a participant: write user:ID, agent:ID or system:ID");
    let (kind, id) = text
        .split_once(':')
        .filter(|(_, id)| !id.is_empty())
        .ok_or_else(rule)?;
    let kind = match kind {
        "user" => v1::ParticipantKind::User,
        "agent" => v1::ParticipantKind::Agent,
        "system" => v1::ParticipantKind::System,
        _ => return Err(rule()),
    };
    Ok(v1::Participant {
        id: id.to_owned(),
        kind: kind.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_has_a_kind_and_an_id() {
        let ada = participant("user:ada:2").unwrap();
        assert_eq!(
            (ada.id.as_str(), ada.kind()),
            ("ada:2", v1::ParticipantKind::User)
        );
        for text in ["ada", "user:", "robot:r2", ""] {
            assert!(
                participant(text).unwrap_err().contains("write user:ID"),
                "{text}"
            );
        }
    }
}
