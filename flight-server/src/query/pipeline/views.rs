//! The catalog in force, as each caller sees it: whole, or narrowed to what is granted. One shape database a view.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use translator::catalog::{Catalog, TableGrant};

use crate::access::{Caller, Sees};
use crate::engine::ShapeDatabase;
use crate::engine::duckdb::DuckError;

/// Narrowed views that are kept, those that were used last.
const MOST_NARROWED: usize = 64;

/// All views of one catalog.
#[derive(Debug)]
pub(super) struct Views {
    whole: Arc<ShapeDatabase>,
    /// The one that was used last at the end.
    narrowed: Mutex<Vec<View>>,
}

#[derive(Debug, Clone)]
struct View {
    grants: Arc<BTreeSet<TableGrant>>,
    catalog: Arc<Catalog>,
    /// Made when it is first asked for.
    shape: Option<Arc<ShapeDatabase>>,
}

impl Views {
    pub(super) fn new(catalog: Arc<Catalog>) -> Result<Self, DuckError> {
        Ok(Self { whole: Arc::new(ShapeDatabase::new(catalog)?), narrowed: Mutex::default() })
    }

    /// With every entity and column.
    pub(super) fn whole(&self) -> &Arc<ShapeDatabase> {
        &self.whole
    }

    /// What a caller sees.
    pub(super) fn catalog(&self, caller: &Caller) -> Arc<Catalog> {
        match &caller.sees {
            Sees::Everything => Arc::clone(self.whole.catalog()),
            Sees::Granted(grants) => self.view(grants).catalog,
        }
    }

    /// The shapes that a caller's statements are bound over, if they are there.
    pub(super) fn known_shape(&self, caller: &Caller) -> Option<Arc<ShapeDatabase>> {
        match &caller.sees {
            Sees::Everything => Some(Arc::clone(&self.whole)),
            Sees::Granted(grants) => self.view(grants).shape,
        }
    }

    /// The same, made if need be. Blocks.
    pub(super) fn shape(&self, caller: &Caller) -> Result<Arc<ShapeDatabase>, DuckError> {
        if let Some(known) = self.known_shape(caller) {
            return Ok(known);
        }
        let Sees::Granted(grants) = &caller.sees else { return Ok(Arc::clone(&self.whole)) };
        let view = self.view(grants);
        let made = Arc::new(ShapeDatabase::new(view.catalog)?);
        let mut narrowed = self.lock();
        match narrowed.iter_mut().find(|view| view.grants == *grants) {
            // Somebody else's, of the same moment: statements that are remembered stay good.
            Some(view) => Ok(Arc::clone(view.shape.get_or_insert(made))),
            None => Ok(made),
        }
    }

    fn view(&self, grants: &Arc<BTreeSet<TableGrant>>) -> View {
        let mut narrowed = self.lock();
        let view = match narrowed.iter().position(|view| view.grants == *grants) {
            Some(place) => narrowed.remove(place),
            None => {
                if narrowed.len() == MOST_NARROWED {
                    narrowed.remove(0);
                }
                let catalog = Arc::new(self.whole.catalog().visible(grants));
                View { grants: Arc::clone(grants), catalog, shape: None }
            }
        };
        narrowed.push(view.clone());
        view
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<View>> {
        self.narrowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
