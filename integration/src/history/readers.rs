//! What subscribers saw is the log; and nothing that anybody saw is another organization's.

use std::iter::Peekable;

use super::{Fault, History, Position, Reader, Rule};

impl History {
    pub(super) fn readers(&self) -> Vec<Fault> {
        let readers = self.readers.iter().filter_map(|it| self.reader(it));
        readers.chain(self.leaks()).collect()
    }

    fn reader(&self, reader: &Reader) -> Option<Fault> {
        let name = &reader.name;
        let wanted = |model: &String| reader.models.is_empty() || reader.models.contains(model);
        let log = self.log.iter().filter(|it| wanted(&it.row.model));
        let mut log = log.peekable();
        let fault = |witness| Some(Fault::new(Rule::Gap, witness));
        // Whoever begins at the oldest change misses, and knows it, what the retention has passed over.
        let begin = |log: &mut Peekable<_>, place: usize, up_to: i64| {
            let last = self.expired.min(up_to);
            while reader.beginnings.contains(&place)
                && log.next_if(|it: &&Position| it.sync_id <= last).is_some()
            {}
        };
        for (place, seen) in reader.changes.iter().enumerate() {
            begin(&mut log, place, seen.sync_id - 1);
            match log.next() {
                Some(there) if there == seen => {}
                Some(there) => {
                    return fault(format!("{name} saw {seen:?} where the log has {there:?}"));
                }
                None => return fault(format!("{name} saw {seen:?}, and the log ends before")),
            }
        }
        begin(&mut log, reader.changes.len(), i64::MAX);
        let missed = log.next()?;
        fault(format!("{name} never saw {missed:?}"))
    }

    fn leaks(&self) -> impl Iterator<Item = Fault> {
        let arrivals = self
            .arrivals
            .iter()
            .map(|it| String::from_utf8_lossy(&it.body));
        let executions = self.executions.iter().map(|it| (&*it.token).into());
        let log = self.log.iter();
        let log = log.chain(self.readers.iter().flat_map(|it| &it.changes));
        let log = log
            .flat_map(|it| [&*it.token, &*it.value, &*it.event])
            .map(Into::into);
        let texts = self.texts.iter().map(|it| (&**it).into());
        let all = arrivals.chain(executions).chain(log).chain(texts);
        all.filter_map(|text| {
            let stranger = self.strangers.iter().find(|it| text.contains(&**it))?;
            let witness = format!("{stranger} stands in {text}");
            Some(Fault::new(Rule::Leaked, witness))
        })
    }
}
