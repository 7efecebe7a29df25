//! The lake of a test: a local folder or an S3 prefix, and Parquet files with exactly the columns, types, row order and
//! row groups that the test asks for.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float64Builder, Int16Builder,
    Int32Builder, Int64Array, Int64Builder, ListArray, RecordBatch, StringBuilder, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{SchemaDescriptor, Type};
use tempfile::TempDir;
use uuid::Uuid;

use crate::model::{Attribute, Entity, Kind, Value, Version, unrounded};
use crate::s3::{self, LAKE_PREFIX, S3Server};

/// One of the two file tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileTier {
    /// Delta files.
    Warm,
    /// Base files.
    Cold,
}

/// How a file keeps UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UuidForm {
    /// Fixed 16 bytes with Parquet's UUID annotation.
    Uuid,
    /// Fixed 16 bytes without it.
    Bytes,
    Text,
}

/// How a file keeps timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampForm {
    Millis,
    Micros,
    Nanos,
    /// Microseconds without the "adjusted to UTC" mark.
    MicrosLocal,
}

/// A Parquet file of the lake as a test describes it.
#[derive(Debug, Clone)]
pub struct LakeFile {
    pub tier: FileTier,
    /// Relative to the lake URL.
    pub path: String,
    pub entity: Entity,
    /// Attribute columns that the file has, in this order.
    pub columns: Vec<String>,
    /// Whether the file has the column `deleted_at`.
    pub has_deleted_at: bool,
    pub row_id: UuidForm,
    pub uuids: UuidForm,
    pub timestamps: TimestampForm,
    pub decimals_as_double: bool,
    pub rows_per_group: usize,
    pub versions: Vec<Version>,
}

/// A folder or prefix that a server reads.
#[derive(Debug)]
pub struct Lake {
    place: Place,
    store: Arc<dyn ObjectStore>,
}

#[derive(Debug)]
enum Place {
    Local(TempDir),
    S3 { server: Arc<S3Server>, bucket: String },
}

impl FileTier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

impl Lake {
    /// An empty lake in a temporary folder.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn local() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("thermocline-lake-").tempdir()?;
        let store = Arc::new(LocalFileSystem::new_with_prefix(dir.path())?);
        Ok(Self { place: Place::Local(dir), store })
    }

    /// An empty lake in a new bucket, under the prefix `lake`.
    ///
    /// # Errors
    /// The bucket can't be made.
    pub fn s3(server: &Arc<S3Server>) -> Result<Self> {
        let bucket = format!("bucket-{}", Uuid::new_v4().simple());
        server.create_bucket(&bucket)?;
        let store = object_store::prefix::PrefixStore::new(server.store(&bucket)?, LAKE_PREFIX);
        Ok(Self { place: Place::S3 { server: Arc::clone(server), bucket }, store: Arc::new(store) })
    }

    /// The lake URL of the configuration.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Local(dir) => format!("file://{}", dir.path().display()),
            Place::S3 { bucket, .. } => format!("s3://{bucket}/{LAKE_PREFIX}"),
        }
    }

    /// The folder of a local lake.
    pub fn folder(&self) -> Option<&std::path::Path> {
        match &self.place {
            Place::Local(dir) => Some(dir.path()),
            Place::S3 { .. } => None,
        }
    }

    pub fn s3_server(&self) -> Option<&Arc<S3Server>> {
        match &self.place {
            Place::Local(_) => None,
            Place::S3 { server, .. } => Some(server),
        }
    }

    /// The `[lake]` table of `thermocline.toml`.
    pub fn config(&self) -> toml::Table {
        let mut lake = toml::Table::new();
        lake.insert("url".to_owned(), self.url().into());
        if let Place::S3 { server, .. } = &self.place {
            let mut access = toml::Table::new();
            access.insert("endpoint".to_owned(), server.endpoint().into());
            access.insert("region".to_owned(), s3::REGION.into());
            access.insert("access_key_id".to_owned(), s3::ACCESS_KEY.into());
            access.insert("secret_access_key".to_owned(), s3::SECRET_KEY.into());
            access.insert("allow_http".to_owned(), true.into());
            access.insert("path_style".to_owned(), true.into());
            lake.insert("s3".to_owned(), access.into());
        }
        lake
    }

    /// Publishes a file; it appears whole or not at all.
    ///
    /// # Errors
    /// A value doesn't fit its column, or the store refuses.
    pub async fn put(&self, file: &LakeFile) -> Result<()> {
        self.put_bytes(&file.path, file.to_parquet()?).await
    }

    /// Publishes any bytes under a path relative to the lake URL.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn put_bytes(&self, path: &str, content: Vec<u8>) -> Result<()> {
        let path = ObjectPath::parse(path)?;
        self.store.put(&path, Bytes::from(content).into()).await.with_context(|| format!("cannot write {path}"))?;
        Ok(())
    }

    /// # Errors
    /// There is no such file.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.store.delete(&ObjectPath::parse(path)?).await.with_context(|| format!("cannot delete {path}"))
    }

    /// # Errors
    /// There is no such file.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        Ok(self.store.get(&ObjectPath::parse(path)?).await?.bytes().await?)
    }

    /// Paths of everything in the lake, sorted.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn list(&self) -> Result<Vec<String>> {
        let mut paths: Vec<String> =
            self.store.list(None).map_ok(|object| object.location.to_string()).try_collect().await?;
        paths.sort();
        Ok(paths)
    }
}

impl LakeFile {
    /// A base file with all the entity's columns.
    pub fn base(entity: &Entity, name: &str, versions: Vec<Version>) -> Self {
        Self::new(FileTier::Cold, format!("base/{}/{name}", entity.schema_id), entity, versions)
    }

    /// A delta file with all the entity's columns.
    pub fn delta(entity: &Entity, name: &str, versions: Vec<Version>) -> Self {
        Self::new(FileTier::Warm, format!("delta/{}/{name}", entity.schema_id), entity, versions)
    }

    pub fn new(tier: FileTier, path: String, entity: &Entity, versions: Vec<Version>) -> Self {
        Self {
            tier,
            path,
            entity: entity.clone(),
            columns: entity.attributes.iter().map(Attribute::column).collect(),
            has_deleted_at: true,
            row_id: UuidForm::Uuid,
            uuids: UuidForm::Uuid,
            timestamps: TimestampForm::Micros,
            decimals_as_double: false,
            rows_per_group: 100_000,
            versions,
        }
    }

    /// Leaves an attribute out, as in a file from before the attribute existed.
    #[must_use]
    pub fn without(mut self, column: &str) -> Self {
        self.columns.retain(|name| name != column);
        self
    }

    /// The rows as one record batch, with the columns that the file gets.
    ///
    /// # Errors
    /// A value doesn't fit its column.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let row_ids: Vec<Value> = self.versions.iter().map(|version| Value::Uuid(version.row_id)).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![("row_id".to_owned(), uuid_array(&row_ids, self.row_id)?)];
        for column in &self.columns {
            let (index, attribute) =
                self.entity.attribute(column).with_context(|| format!("no attribute for the column {column}"))?;
            let values: Vec<Value> = self.versions.iter().map(|version| version.values[index].clone()).collect();
            let array = self.attribute_array(attribute, &values).with_context(|| format!("column {column}"))?;
            columns.push((column.clone(), array));
        }
        let times = |time: fn(&Version) -> Option<i64>| -> ArrayRef {
            Arc::new(self.versions.iter().map(time).collect::<Int64Array>())
        };
        columns.push(("created_at".to_owned(), times(|version| Some(version.created_at))));
        columns.push(("changed_at".to_owned(), times(|version| Some(version.changed_at))));
        if self.has_deleted_at {
            columns.push(("deleted_at".to_owned(), times(|version| version.deleted_at)));
        } else if self.versions.iter().any(|version| version.is_deleted()) {
            bail!("a file without deleted_at can't hold tombstones");
        }
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }

    /// # Errors
    /// A value doesn't fit its column.
    pub fn to_parquet(&self) -> Result<Vec<u8>> {
        let annotated = self.row_id == UuidForm::Uuid || self.uuids == UuidForm::Uuid;
        write_parquet(&self.to_batch()?, self.rows_per_group, annotated)
    }

    fn attribute_array(&self, attribute: &Attribute, values: &[Value]) -> Result<ArrayRef> {
        if !attribute.list {
            return self.scalar_array(attribute.kind, values);
        }
        let mut elements = Vec::new();
        let mut lengths = Vec::with_capacity(values.len());
        let mut valid = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Value::Null => (lengths.push(0), valid.push(false)),
                Value::List(list) => {
                    elements.extend(list.iter().cloned());
                    (lengths.push(list.len()), valid.push(true))
                }
                scalar => bail!("{scalar:?} is no list"),
            };
        }
        let elements = self.scalar_array(attribute.kind, &elements)?;
        let field = Arc::new(Field::new("element", elements.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(field, offsets, elements, Some(NullBuffer::from(valid)))?))
    }

    fn scalar_array(&self, kind: Kind, values: &[Value]) -> Result<ArrayRef> {
        macro_rules! build {
            ($builder:expr, $pattern:pat => $value:expr) => {{
                let mut builder = $builder;
                for value in values {
                    match value {
                        Value::Null => builder.append_null(),
                        $pattern => builder.append_value($value),
                        other => bail!("{other:?} is no {kind:?}"),
                    }
                }
                Arc::new(builder.finish()) as ArrayRef
            }};
        }
        Ok(match kind {
            Kind::Text | Kind::Json => build!(StringBuilder::new(), Value::Text(text) => text),
            Kind::SmallInt => build!(Int16Builder::new(), Value::Integer(value) => i16::try_from(*value)?),
            Kind::Integer => build!(Int32Builder::new(), Value::Integer(value) => i32::try_from(*value)?),
            Kind::BigInt => build!(Int64Builder::new(), Value::Integer(value) => *value),
            Kind::Double => build!(Float64Builder::new(), Value::Double(value) => *value),
            Kind::Boolean => build!(BooleanBuilder::new(), Value::Boolean(value) => *value),
            Kind::Date => build!(Date32Builder::new(), Value::Date(days) => *days),
            Kind::Uuid => uuid_array(values, self.uuids)?,
            Kind::Decimal { scale, .. } if self.decimals_as_double => {
                let divisor = 10f64.powi(i32::from(scale) + 1);
                build!(Float64Builder::new(), Value::Decimal(unscaled) => unrounded(*unscaled) as f64 / divisor)
            }
            Kind::Decimal { precision, scale } => {
                let builder = Decimal128Builder::new().with_precision_and_scale(precision, i8::try_from(scale)?)?;
                build!(builder, Value::Decimal(unscaled) => i128::from(*unscaled))
            }
            Kind::Timestamp => {
                let mut millis = Vec::with_capacity(values.len());
                for value in values {
                    millis.push(match value {
                        Value::Null => None,
                        Value::Timestamp(ms) => Some(*ms),
                        other => bail!("{other:?} is no {kind:?}"),
                    });
                }
                let scaled = |factor: i64| millis.iter().map(move |ms| ms.map(|ms| ms * factor));
                match self.timestamps {
                    TimestampForm::Millis => {
                        Arc::new(scaled(1).collect::<TimestampMillisecondArray>().with_timezone("UTC"))
                    }
                    TimestampForm::Micros => {
                        Arc::new(scaled(1000).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
                    }
                    TimestampForm::MicrosLocal => Arc::new(scaled(1000).collect::<TimestampMicrosecondArray>()),
                    TimestampForm::Nanos => {
                        Arc::new(scaled(1_000_000).collect::<TimestampNanosecondArray>().with_timezone("UTC"))
                    }
                }
            }
        })
    }
}

fn uuid_array(values: &[Value], form: UuidForm) -> Result<ArrayRef> {
    let mut text = StringBuilder::new();
    let mut fixed = FixedSizeBinaryBuilder::new(16);
    for value in values {
        match value {
            Value::Null => {
                text.append_null();
                fixed.append_null();
            }
            Value::Uuid(id) => {
                text.append_value(id.to_string());
                fixed.append_value(id.as_bytes())?;
            }
            other => bail!("{other:?} is no UUID"),
        }
    }
    Ok(match form {
        UuidForm::Text => Arc::new(text.finish()),
        UuidForm::Uuid | UuidForm::Bytes => Arc::new(fixed.finish()),
    })
}

/// Writes a record batch as a Parquet file. With `annotate_uuids`, every column of fixed 16 bytes gets Parquet's UUID
/// annotation.
///
/// # Errors
/// A column has a type that Parquet can't hold.
pub fn write_parquet(batch: &RecordBatch, rows_per_group: usize, annotate_uuids: bool) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows_per_group)).build();
    let mut options = ArrowWriterOptions::new().with_properties(properties);
    if annotate_uuids {
        let descriptor = ArrowSchemaConverter::new().convert(&batch.schema())?;
        let root = annotate(descriptor.root_schema_ptr().as_ref())?;
        options = options.with_parquet_schema(SchemaDescriptor::new(Arc::new(root)));
    }
    let mut content = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut content, batch.schema(), options)?;
    writer.write(batch)?;
    writer.close()?;
    Ok(content)
}

fn annotate(node: &Type) -> Result<Type> {
    let info = node.get_basic_info();
    Ok(match node {
        Type::PrimitiveType { physical_type: PhysicalType::FIXED_LEN_BYTE_ARRAY, type_length: 16, .. } => {
            Type::primitive_type_builder(info.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY)
                .with_length(16)
                .with_repetition(info.repetition())
                .with_logical_type(Some(LogicalType::Uuid))
                .build()?
        }
        Type::PrimitiveType { .. } => node.clone(),
        Type::GroupType { fields, .. } => {
            let fields = fields.iter().map(|field| Ok(Arc::new(annotate(field)?))).collect::<Result<Vec<_>>>()?;
            let mut group = Type::group_type_builder(info.name())
                .with_fields(fields)
                .with_logical_type(info.logical_type_ref().cloned())
                .with_converted_type(info.converted_type());
            if info.has_repetition() {
                group = group.with_repetition(info.repetition());
            }
            group.build()?
        }
    })
}
