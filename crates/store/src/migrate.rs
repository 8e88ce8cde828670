//! Brings the schema up to date, one transaction per step.

use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
use crate::pool::{Pool, with_read, with_write};
use crate::text::to_hex;

/// One step, in the words of each engine.
struct Migration {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $name, ".sql")),
        }
    };
}

/// Never change one that was released: add the next.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_foundation"),
    migration!(2, "0002_combos"),
    migration!(3, "0003_reasoning_memory"),
    migration!(4, "0004_response_owners"),
    migration!(5, "0005_resilience"),
    migration!(6, "0006_accounts"),
    migration!(7, "0007_budgets"),
    migration!(8, "0008_policies"),
    migration!(9, "0009_routing_decisions"),
    migration!(11, "0011_response_models"),
    migration!(12, "0012_answer_sources"),
    migration!(13, "0013_answers"),
    migration!(14, "0014_similar_questions"),
    migration!(16, "0016_request_types"),
    migration!(17, "0017_usage_by_kind"),
    migration!(18, "0018_budget_ways_out"),
    migration!(19, "0019_quota_snapshots"),
    migration!(20, "0020_context_handoffs"),
    migration!(24, "0024_routing_names"),
    migration!(25, "0025_quotas_without_total"),
    migration!(26, "0026_call_bodies"),
    migration!(27, "0027_webhooks"),
    migration!(28, "0028_unfinished_answers"),
    migration!(29, "0029_key_states"),
    migration!(30, "0030_service_tiers"),
    migration!(31, "0031_routing_lists"),
    migration!(32, "0032_alias_ages"),
    migration!(33, "0033_decisions_once"),
    migration!(34, "0034_written_batches"),
    migration!(35, "0035_policy_modes"),
    migration!(36, "0036_ledger_rows_stay"),
];

/// Applies what is missing.
pub(crate) async fn run(pool: &Pool) -> Result<(), StoreError> {
    if let Ok(applied) = applied(pool).await
        && pending(pool, &applied)?.is_empty()
    {
        return Ok(());
    }
    with_write!(pool, |db| {
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS _omniroute_migrations (
                version BIGINT NOT NULL PRIMARY KEY,
                name TEXT NOT NULL,
                applied_at BIGINT NOT NULL,
                checksum TEXT NOT NULL
            )",
        )
        .execute(&mut *db)
        .await?;
    });
    for migration in MIGRATIONS {
        apply(pool, migration).await?;
    }
    Ok(())
}

/// Whether the schema is the one known here; changes nothing.
pub(crate) async fn check(pool: &Pool) -> Result<(), StoreError> {
    match pending(pool, &applied(pool).await?)?.first() {
        None => Ok(()),
        Some(missing) => Err(StoreError::Schema(format!(
            "step {} is missing; start this version of the gateway on it once",
            missing.name
        ))),
    }
}

/// The last step that was applied.
pub(crate) async fn version(pool: &Pool) -> Result<i64, StoreError> {
    Ok(applied(pool).await?.last().map_or(0, |(version, _)| *version))
}

async fn applied(pool: &Pool) -> Result<Vec<(i64, String)>, StoreError> {
    Ok(with_read!(pool, |db| {
        sqlx::query_as("SELECT version, checksum FROM _omniroute_migrations ORDER BY version")
            .fetch_all(&mut *db)
            .await?
    }))
}

/// The steps that are missing; an error when the database is newer or was made by other steps.
fn pending<'a>(pool: &Pool, applied: &[(i64, String)]) -> Result<Vec<&'a Migration>, StoreError> {
    let known = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if let Some((found, _)) = applied.iter().find(|(version, _)| *version > known) {
        return Err(StoreError::TooNew { found: *found, known });
    }
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            None => missing.push(migration),
            Some((_, checksum)) if *checksum == migration.checksum(pool) => {}
            Some(_) => {
                return Err(StoreError::Schema(format!(
                    "step {} was applied in another form",
                    migration.name
                )));
            }
        }
    }
    Ok(missing)
}

async fn apply(pool: &Pool, migration: &'static Migration) -> Result<(), StoreError> {
    let now = match pool {
        Pool::Sqlite { .. } => "CAST(strftime('%s', 'now') AS INTEGER) * 1000",
        Pool::Postgres(_) => "CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT)",
    };
    let note = format!(
        "INSERT INTO _omniroute_migrations (version, name, applied_at, checksum) VALUES ($1, $2, {now}, $3)"
    );
    with_write!(pool, |db| {
        if let Pool::Postgres(_) = pool {
            // Several processes may start at once.
            sqlx::query("LOCK TABLE _omniroute_migrations IN EXCLUSIVE MODE").execute(&mut *db).await?;
        }
        // Asked again inside the transaction: another process may have been faster.
        let applied: Vec<(i64, String)> =
            sqlx::query_as("SELECT version, checksum FROM _omniroute_migrations").fetch_all(&mut *db).await?;
        if !pending(pool, &applied)?.iter().any(|missing| missing.version == migration.version) {
            return Ok(());
        }
        sqlx::raw_sql(migration.sql(pool)).execute(&mut *db).await?;
        sqlx::query(sqlx::AssertSqlSafe(note))
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum(pool))
            .execute(&mut *db)
            .await?;
    });
    tracing::info!(version = migration.version, name = migration.name, "schema migrated");
    Ok(())
}

impl Migration {
    fn sql(&self, pool: &Pool) -> &'static str {
        match pool {
            Pool::Sqlite { .. } => self.sqlite,
            Pool::Postgres(_) => self.postgres,
        }
    }

    fn checksum(&self, pool: &Pool) -> String {
        to_hex(&Sha256::digest(self.sql(pool).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_folders_hold_the_listed_steps() {
        let listed: Vec<String> =
            MIGRATIONS.iter().map(|migration| format!("{}.sql", migration.name)).collect();
        for engine in ["sqlite", "postgres"] {
            let folder = format!("{}/migrations/{engine}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files, listed, "{engine}");
        }
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].version < pair[1].version));
        assert!(MIGRATIONS.iter().all(|step| step.name.starts_with(&format!("{:04}_", step.version))));
    }

    #[test]
    fn both_engines_get_the_same_columns() {
        fn tables(sql: &str) -> Vec<(String, Vec<String>)> {
            sql.split("CREATE TABLE ")
                .skip(1)
                .map(|part| {
                    let (name, rest) = part.split_once(" (").unwrap();
                    let body = rest.split_once("\n)").unwrap().0;
                    let columns = body
                        .lines()
                        .filter_map(|line| line.split_whitespace().next())
                        .filter(|word| *word != "PRIMARY")
                        .map(str::to_owned)
                        .collect();
                    (name.to_owned(), columns)
                })
                .collect()
        }
        for step in MIGRATIONS {
            assert_eq!(tables(step.sqlite), tables(step.postgres), "{}", step.name);
        }
    }
}
