//! One effect at the endpoint for each commit that was confirmed, none for any other.

use super::{Fault, History, Rule, Writes, counts};

impl History {
    pub(super) fn effects(&self, writes: &Writes<'_>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let executed = counts(self.executions.iter().map(|it| &*it.token));
        for write in self.writes.iter().filter(|it| it.delivered) {
            let token = &write.token;
            match executed.get(&**token).copied().unwrap_or(0) {
                0 if write.promised() => faults.push(Fault::new(
                    Rule::Lost,
                    format!("{token} was acknowledged and never executed"),
                )),
                0 | 1 => {}
                times => faults.push(Fault::new(
                    Rule::Doubled,
                    format!("{token} was executed {times} times"),
                )),
            }
        }
        for execution in &self.executions {
            let token = &execution.token;
            let Some(write) = writes.get(&**token).filter(|it| it.delivered) else {
                let witness = format!("{token} was executed, and nobody sent it there");
                faults.push(Fault::new(Rule::Phantom, witness));
                continue;
            };
            if write.denied() {
                let witness = format!("{token} was executed, and refused");
                faults.push(Fault::new(Rule::Phantom, witness));
            }
            if write.rows != execution.rows {
                let (sent, done) = (&write.rows, &execution.rows);
                let witness = format!("{token} changes {sent:?}, and changed {done:?}");
                faults.push(Fault::new(Rule::Phantom, witness));
            }
        }
        faults
    }
}
