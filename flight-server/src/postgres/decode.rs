//! From the bytes of a hot statement's COPY to Arrow: each value from its wire type to its logical type, exactly.
//!
//! A value that doesn't fit its declared type is an error that names entity, row and attribute; never the value, which
//! may be confidential.

mod iso8601;
mod scalar;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, FixedSizeBinaryBuilder, Int64Builder, ListArray, NullBufferBuilder, RecordBatch,
    RecordBatchOptions,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use translator::catalog::{Attribute, Column, Entity, ScalarType};
use translator::hot::{HotColumn, WireType};

use self::scalar::ScalarBuilder;
use super::copy::{CopyRow, read_i32};
use super::error::{PostgresError, PostgresErrorKind};

/// Columns that every hot statement returns before the attributes.
const LEADING_FIELDS: usize = 5;

/// Why a value doesn't fit its declared type, without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Misfit(&'static str);

impl Misfit {
    const fn new(reason: &'static str) -> Self {
        Self(reason)
    }
}

/// What one hot statement brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HotSummary {
    /// Rows that PostgreSQL returned.
    pub rows_scanned: u64,
    /// Rows in the batches.
    pub rows_returned: u64,
    /// Live rows of the dirty set without an `entity_main` row: left out, worth a warning.
    pub inconsistent_rows: u64,
    /// Rows with a value that doesn't fit its declared type, where such rows are left out instead of being an error.
    pub unreadable_rows: u64,
    /// Bytes of values on the wire.
    pub bytes: u64,
}

/// A row with a value that doesn't fit its declared type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    pub row_id: uuid::Uuid,
    /// Names entity, row, attribute and reason; never the value.
    pub message: String,
}

/// Builds record batches from the rows of one hot statement.
#[derive(Debug)]
pub(super) struct RowDecoder {
    entity: String,
    schema: SchemaRef,
    row_id: FixedSizeBinaryBuilder,
    changed_at: Int64Builder,
    deleted_at: Int64Builder,
    created_at: Int64Builder,
    attributes: Vec<AttributeBuilder>,
    rows: usize,
    bytes: usize,
    summary: HotSummary,
    /// `None`: a value that doesn't fit is an error.
    leaves_out: Option<LeftOut>,
}

/// Rows of the batch under construction that don't come out with it.
#[derive(Debug, Default)]
struct LeftOut {
    /// Whether each row comes out.
    kept: BooleanBuilder,
    rows: Vec<UnreadableRow>,
}

#[derive(Debug)]
struct AttributeBuilder {
    name: String,
    wire: WireType,
    scalar: ScalarBuilder,
    /// Offsets and validity of the lists, for a list attribute.
    list: Option<ListParts>,
}

#[derive(Debug)]
struct ListParts {
    offsets: Vec<i32>,
    validity: NullBufferBuilder,
}

/// The Arrow schema of a hot statement's batches: `row_id`, `changed_at`, `deleted_at`, `created_at`, attributes.
pub fn hot_schema(entity: &Entity, columns: &[HotColumn]) -> SchemaRef {
    let mut fields = vec![
        Field::new("row_id", DataType::FixedSizeBinary(16), false),
        Field::new("changed_at", DataType::Int64, false),
        Field::new("deleted_at", DataType::Int64, true),
        Field::new("created_at", DataType::Int64, true),
    ];
    fields.extend(columns.iter().filter_map(|column| {
        let attribute = attribute_of(entity, column)?;
        Some(Field::new(&attribute.column, arrow_type(attribute), true))
    }));
    Arc::new(Schema::new(fields))
}

fn attribute_of<'e>(entity: &'e Entity, column: &HotColumn) -> Option<&'e Attribute> {
    match column.column {
        Column::Attribute(index) => entity.attributes.get(index),
        Column::RowId | Column::CreatedAt | Column::UpdatedAt | Column::Tier | Column::DeletedAt => None,
    }
}

fn arrow_type(attribute: &Attribute) -> DataType {
    let scalar = scalar_type(attribute.scalar);
    if attribute.list { DataType::List(Arc::new(Field::new_list_field(scalar, true))) } else { scalar }
}

fn scalar_type(scalar: ScalarType) -> DataType {
    match scalar {
        ScalarType::Text | ScalarType::Json => DataType::Utf8,
        ScalarType::SmallInt => DataType::Int16,
        ScalarType::Integer => DataType::Int32,
        ScalarType::BigInt => DataType::Int64,
        ScalarType::Double => DataType::Float64,
        ScalarType::Decimal { precision, scale } => DataType::Decimal128(precision, scale.cast_signed()),
        ScalarType::Boolean => DataType::Boolean,
        ScalarType::Uuid => DataType::FixedSizeBinary(16),
        ScalarType::Date => DataType::Date32,
        ScalarType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ScalarType::TimestampNaive => DataType::Timestamp(TimeUnit::Microsecond, None),
        ScalarType::Time => DataType::Time64(TimeUnit::Microsecond),
        ScalarType::Real => DataType::Float32,
        ScalarType::Blob => DataType::Binary,
    }
}

impl RowDecoder {
    /// # Errors
    /// Internal, when a hot column is no attribute or its wire type cannot carry its logical type.
    pub(super) fn new(entity: &Entity, columns: &[HotColumn]) -> Result<Self, PostgresError> {
        let attributes = columns.iter().map(|column| {
            let attribute = attribute_of(entity, column).ok_or_else(|| {
                PostgresError::internal(format!("hot column {:?} of `{}` is no attribute", column.column, entity.name))
            })?;
            AttributeBuilder::new(attribute, column.wire)
        });
        Ok(Self {
            entity: entity.name.clone(),
            schema: hot_schema(entity, columns),
            row_id: FixedSizeBinaryBuilder::new(16),
            changed_at: Int64Builder::new(),
            deleted_at: Int64Builder::new(),
            created_at: Int64Builder::new(),
            attributes: attributes.collect::<Result<_, _>>()?,
            rows: 0,
            bytes: 0,
            summary: HotSummary::default(),
            leaves_out: None,
        })
    }

    /// From here on rows with a value that doesn't fit are left out.
    pub(super) fn leave_unreadable_out(&mut self) {
        self.leaves_out = Some(LeftOut::default());
    }

    /// The rows that were left out since the last call.
    pub(super) fn take_unreadable(&mut self) -> Vec<UnreadableRow> {
        self.leaves_out.as_mut().map(|left_out| std::mem::take(&mut left_out.rows)).unwrap_or_default()
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn summary(&self) -> HotSummary {
        self.summary
    }

    /// Rows of the batch under construction.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes on the wire of the batch under construction.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the batch under construction, after an error.
    pub(super) fn discard(&mut self) {
        self.rows = 0;
        self.bytes = 0;
    }

    /// Adds one row; after an error the decoder is of no more use.
    pub(super) fn push(&mut self, row: CopyRow<'_>) -> Result<(), PostgresError> {
        if row.len() != LEADING_FIELDS + self.attributes.len() {
            return Err(PostgresError::internal(format!(
                "a hot statement returned {} columns; expected {}",
                row.len(),
                LEADING_FIELDS + self.attributes.len()
            )));
        }
        self.summary.rows_scanned += 1;
        self.summary.bytes += row.size() as u64;

        let row_id: [u8; 16] = fixed(row.field(0)).ok_or_else(|| leading_fault("row_id"))?;
        let changed_at = fixed(row.field(1)).map(i64::from_be_bytes).ok_or_else(|| leading_fault("changed_at"))?;
        let deleted_at = optional_i64(row.field(2)).ok_or_else(|| leading_fault("deleted_at"))?.filter(|at| *at != 0);
        let created_at = optional_i64(row.field(3)).ok_or_else(|| leading_fault("created_at"))?;
        let has_main = fixed::<1>(row.field(4)).ok_or_else(|| leading_fault("has_main"))? != [0];
        if !has_main && deleted_at.is_none() {
            self.summary.inconsistent_rows += 1;
            return Ok(());
        }

        self.row_id
            .append_value(row_id)
            .map_err(|error| PostgresError::internal("cannot build the column of row ids").with_source(error))?;
        self.changed_at.append_value(changed_at);
        self.deleted_at.append_option(deleted_at);
        self.created_at.append_option(created_at);
        let row_id = uuid::Uuid::from_bytes(row_id);
        let mut misfit_of_row = None;
        for (index, attribute) in self.attributes.iter_mut().enumerate() {
            if let Err(misfit) = attribute.push(row.field(LEADING_FIELDS + index)) {
                let message = format!(
                    "attribute `{}` of `{}`, row {row_id}, tier hot: the stored value {}",
                    attribute.name, self.entity, misfit.0
                );
                if self.leaves_out.is_none() {
                    let error = PostgresError::new(PostgresErrorKind::Data, message);
                    return Err(error.of_attribute(&attribute.name));
                }
                // Keeps the columns of one length; the row is filtered out of the batch.
                attribute.push(None).map_err(|_| PostgresError::internal("a NULL fits every type"))?;
                misfit_of_row.get_or_insert(message);
            }
        }
        self.rows += 1;
        self.bytes += row.size();
        if let Some(left_out) = &mut self.leaves_out {
            left_out.kept.append_value(misfit_of_row.is_none());
        }
        match (&mut self.leaves_out, misfit_of_row) {
            (Some(left_out), Some(message)) => {
                left_out.rows.push(UnreadableRow { row_id, message });
                self.summary.unreadable_rows += 1;
            }
            _ => self.summary.rows_returned += 1,
        }
        Ok(())
    }

    /// The batch under construction, and an empty one in its place.
    pub(super) fn take_batch(&mut self) -> Result<RecordBatch, PostgresError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.row_id.finish()),
            Arc::new(self.changed_at.finish()),
            Arc::new(self.deleted_at.finish()),
            Arc::new(self.created_at.finish()),
        ];
        for attribute in &mut self.attributes {
            columns.push(attribute.finish()?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        let batch = match &mut self.leaves_out {
            Some(left_out) => {
                let kept = left_out.kept.finish();
                batch.and_then(|batch| filter_record_batch(&batch, &kept))
            }
            None => batch,
        };
        batch.map_err(|error| PostgresError::internal("cannot build a batch of hot rows").with_source(error))
    }
}

fn leading_fault(name: &str) -> PostgresError {
    PostgresError::internal(format!("a hot statement returned a bad `{name}`"))
}

/// A field of exactly `N` bytes; `None` when it is NULL or of another size.
fn fixed<const N: usize>(field: Option<&[u8]>) -> Option<[u8; N]> {
    field?.try_into().ok()
}

/// A NULL or an `int8`; the outer `None` for anything else.
fn optional_i64(field: Option<&[u8]>) -> Option<Option<i64>> {
    match field {
        None => Some(None),
        Some(bytes) => bytes.try_into().ok().map(|bytes| Some(i64::from_be_bytes(bytes))),
    }
}

impl AttributeBuilder {
    fn new(attribute: &Attribute, wire: WireType) -> Result<Self, PostgresError> {
        let element = if attribute.list { wire.element() } else { Some(wire).filter(|wire| wire.element().is_none()) };
        let scalar =
            element.and_then(|element| ScalarBuilder::new(attribute.scalar, attribute.encoding, element)).ok_or_else(
                || PostgresError::internal(format!("attribute `{}` cannot come as {wire:?}", attribute.name)),
            )?;
        let list = attribute.list.then(ListParts::new);
        Ok(Self { name: attribute.name.clone(), wire, scalar, list })
    }

    fn push(&mut self, field: Option<&[u8]>) -> Result<(), Misfit> {
        let Some(list) = &mut self.list else { return self.scalar.push(field) };
        match field {
            None => list.validity.append_null(),
            Some(bytes) => {
                for_each_element(bytes, |element| self.scalar.push(element))?;
                list.validity.append_non_null();
            }
        }
        list.offsets.push(i32::try_from(self.scalar.len()).map_err(|_| Misfit::new("is too long a list"))?);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, PostgresError> {
        let values = self.scalar.finish()?;
        let Some(list) = &mut self.list else { return Ok(values) };
        let mut parts = std::mem::replace(list, ListParts::new());
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(parts.offsets));
        let array = ListArray::try_new(field, offsets, values, parts.validity.finish()).map_err(|error| {
            PostgresError::internal(format!("cannot build the lists of {:?}", self.wire)).with_source(error)
        })?;
        Ok(Arc::new(array))
    }
}

impl ListParts {
    fn new() -> Self {
        Self { offsets: vec![0], validity: NullBufferBuilder::new(0) }
    }
}

/// Walks over a one-dimensional array in PostgreSQL's binary form (`array_send`).
fn for_each_element(
    bytes: &[u8],
    mut on_element: impl FnMut(Option<&[u8]>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    const BAD: Misfit = Misfit::new("is no one-dimensional array");
    let dimensions = read_i32(bytes, 0).ok_or(BAD)?;
    if dimensions == 0 {
        return Ok(());
    }
    // Dimensions, null flag, element type, then length and lower bound of the one dimension.
    let count = read_i32(bytes, 12).filter(|_| dimensions == 1).ok_or(BAD)?;
    let mut at = 20;
    for _ in 0..count {
        let length = read_i32(bytes, at).ok_or(BAD)?;
        at += 4;
        if length < 0 {
            on_element(None)?;
            continue;
        }
        let length = usize::try_from(length).map_err(|_| BAD)?;
        on_element(Some(bytes.get(at..at + length).ok_or(BAD)?))?;
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
