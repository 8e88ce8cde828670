//! The places of connections within their provider: 1 to n, without gaps.

/// Takes the rows of a provider's connections in the order in which the writer takes them, so that neither can have one that the
/// other waits for. Before anything is written to any of them.
macro_rules! lock_rows {
    ($db:ident, $provider:expr) => {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM provider_connections WHERE provider = $1 ORDER BY id")
                .bind($provider)
                .fetch_all(&mut *$db)
                .await?;
        for id in ids {
            sqlx::query("UPDATE provider_connections SET priority = priority WHERE id = $1")
                .bind(id)
                .execute(&mut *$db)
                .await?;
        }
    };
}
pub(crate) use lock_rows;

/// Gives the connections of a provider the priorities 1..n, one of them at a wanted place.
macro_rules! renumber {
    ($db:ident, $provider:expr, $moved:expr) => {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, priority FROM provider_connections WHERE provider = $1 ORDER BY priority, created_at, id",
        )
        .bind($provider)
        .fetch_all(&mut *$db)
        .await?;
        for (id, priority) in $crate::connections::order::renumbered(rows, $moved) {
            sqlx::query("UPDATE provider_connections SET priority = $2 WHERE id = $1")
                .bind(id)
                .bind(priority)
                .execute(&mut *$db)
                .await?;
        }
    };
}
pub(super) use renumber;

/// The rows whose priority changes, with the new one.
pub(super) fn renumbered(rows: Vec<(String, i64)>, moved: Option<(&str, i64)>) -> Vec<(String, i64)> {
    let mut order = rows;
    if let Some((id, wanted)) = moved
        && let Some(at) = order.iter().position(|(other, _)| other == id)
    {
        let row = order.remove(at);
        let place = match usize::try_from(wanted) {
            Ok(wanted) if (1..=order.len()).contains(&wanted) => wanted - 1,
            Ok(_) | Err(_) => order.len(),
        };
        order.insert(place, row);
    }
    order.into_iter().zip(1..).filter(|((_, old), new)| old != new).map(|((id, _), new)| (id, new)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_one_to_n_with_the_moved_one_in_its_place() {
        let rows = || vec![("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)];
        let order = |moved| {
            let mut all: Vec<(String, i64)> = rows();
            for (id, priority) in renumbered(rows(), moved) {
                all.iter_mut().find(|(other, _)| *other == id).unwrap().1 = priority;
            }
            all.sort_by_key(|(_, priority)| *priority);
            all.into_iter().map(|(id, _)| id).collect::<String>()
        };
        for (moved, expected) in [
            (None, "abc"),
            (Some(("c", 1)), "cab"),
            (Some(("a", 3)), "bca"),
            (Some(("a", 99)), "bca"),
            (Some(("b", 0)), "acb"),
            (Some(("b", -4)), "acb"),
            (Some(("b", 2)), "abc"),
            (Some(("x", 1)), "abc"),
        ] {
            assert_eq!(order(moved), expected, "{moved:?}");
        }
        assert_eq!(
            renumbered(vec![("a".into(), 5), ("b".into(), i64::MAX)], None),
            [("a".into(), 1), ("b".into(), 2)]
        );
    }
}
