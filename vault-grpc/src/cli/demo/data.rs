//! The shipped customer records: made up, but shaped like real ones (quotes, line breaks, accents, empty fields).

use super::Failed;

/// One value of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// The person; the subject whose own key seals the value.
    pub customer: String,
    /// The column's name, in the encryption context.
    pub column: String,
    /// What is encrypted.
    pub value: String,
}

/// All fields of all records, but for the customer numbers themselves.
pub(super) fn fields() -> Result<Vec<Field>, Failed> {
    let mut reader = csv::Reader::from_reader(include_bytes!("../../../demo/customers.csv").as_slice());
    let columns = reader.headers()?.clone();
    let mut fields = Vec::new();
    for record in reader.records() {
        let record = record?;
        let customer = record.get(0).ok_or("a record without a customer number")?;
        for (column, value) in columns.iter().zip(&record).skip(1) {
            fields.push(Field { customer: customer.into(), column: column.into(), value: value.into() });
        }
    }
    Ok(fields)
}
