//! A row in, the facts of its records out. Pure: no file, no clock, no network.

use odometer_schemas::time::TimeMs;

use super::amount::Amount;
use super::map::{Map, QuantityRule, Slot, TenantRule};
use super::rows::{Row, RowError};

/// What one row says, before it is fanned out over tenants and repetitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Event time, when the map has one.
    pub(super) time: Option<TimeMs>,
    /// The tenant.
    pub(super) tenant: String,
    /// The rule's place in [`Map::records`] and how much, for each record.
    pub(super) amounts: Vec<(usize, Amount)>,
}

impl Facts {
    /// Reads `row` by `map`. What was there before is gone, also after an error.
    ///
    /// # Errors
    /// Names the row, the field and the fix.
    pub(super) fn read(&mut self, map: &Map, row: &Row) -> Result<(), RowError> {
        self.time = time_of(map, row)?;
        self.tenant.clear();
        read_tenant(map, row, &mut self.tenant)?;
        self.amounts.clear();
        for (index, rule) in map.records.iter().enumerate() {
            if rule.only_where.as_ref().is_some_and(|(slot, equals)| row.cell(*slot) != equals) {
                continue;
            }
            match &rule.quantity {
                QuantityRule::Constant(amount) => self.amounts.push((index, amount.clone())),
                QuantityRule::Field { slot, unit } => {
                    let text = row.cell(*slot).trim_ascii();
                    if text.is_empty() {
                        continue;
                    }
                    let amount = Amount::parse(text, *unit)
                        .map_err(|error| wrong(map, row, *slot, format!("is no quantity: `{text}` {error}")))?;
                    self.amounts.push((index, amount));
                }
            }
        }
        Ok(())
    }
}

/// The row's event time, when the map has one.
///
/// # Errors
/// Names the row, the field and the fix.
pub(super) fn time_of(map: &Map, row: &Row) -> Result<Option<TimeMs>, RowError> {
    let Some(rule) = &map.time else { return Ok(None) };
    let text = row.cell(rule.slot).trim_ascii();
    if text.is_empty() {
        return Err(wrong(map, row, rule.slot, "is empty; every row needs its time".into()));
    }
    rule.reading.read(text).map(Some).map_err(|problem| wrong(map, row, rule.slot, format!("is no time: {problem}")))
}

fn read_tenant(map: &Map, row: &Row, tenant: &mut String) -> Result<(), RowError> {
    match &map.tenant {
        TenantRule::Value(value) => tenant.push_str(value),
        TenantRule::Fields { slots, join } => {
            for (index, slot) in slots.iter().enumerate() {
                let part = row.cell(*slot);
                if part.is_empty() {
                    return Err(wrong(map, row, *slot, "is empty; every row needs its tenant".into()));
                }
                if index > 0 {
                    tenant.push_str(join);
                }
                tenant.push_str(part);
            }
        }
    }
    Ok(())
}

fn wrong(map: &Map, row: &Row, slot: Slot, problem: String) -> RowError {
    RowError { row: row.number, line: row.line, field: map.field(slot).into(), problem }
}
