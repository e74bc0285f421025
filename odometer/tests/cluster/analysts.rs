//! What analysts ask ClickHouse by hand, and what the usage API answers, are the same.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Cluster, answer, await_ready};
use crate::traffic::{expected, traces};

/// Groups and what they add up to.
type Sums = BTreeMap<String, i128>;

/// The rows of the usage API, by window and group.
fn by_api(url: &str) -> Sums {
    let answer = answer(url);
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{url}: {answer}"));
    let key = |row: &Value| match row["group"].as_str() {
        Some(group) => format!("{} {group}", row["window_start"].as_str().unwrap()),
        None => row["window_start"].as_str().unwrap().to_owned(),
    };
    rows.iter().map(|row| (key(row), row["quantity"].as_str().unwrap().parse().unwrap())).collect()
}

/// The two columns of a query.
fn by_sql(cluster: &Cluster, sql: &str) -> Sums {
    let text = cluster.clickhouse(&format!("{sql} FORMAT TabSeparated"));
    let pair = |line: &str| {
        let (key, quantity) = line.split_once('\t').unwrap();
        (key.to_owned(), quantity.parse().unwrap())
    };
    text.lines().map(pair).collect()
}

#[test]
fn queries_by_hand_match_the_usage_api() {
    let cluster = Cluster::new(4);
    let traces = traces(cluster.directory());
    let node = cluster.node();
    await_ready(&node);
    traces.iter().for_each(|trace| trace.replay(&node.url));
    let expected = expected(&traces);
    cluster.await_totals(&expected);
    cluster.prove();
    let meters: Vec<&String> = expected.keys().map(|(_, meter)| meter).collect();
    for (tenant, meter) in expected.keys() {
        hours_of_one_tenant(&cluster, &node.url, tenant, meter);
    }
    for meter in meters {
        months_of_one_meter(&cluster, &node.url, meter);
        top_tenants_of_a_day(&cluster, &node.url, meter, expected.keys().map(|(tenant, _)| tenant.as_str()));
    }
    node.stop();
}

fn hours_of_one_tenant(cluster: &Cluster, url: &str, tenant: &str, meter: &str) {
    let sql = format!(
        "SELECT concat(formatDateTime(window_start, '%FT%TZ'), ' ', JSONExtractString(dimensions, 'model')) AS hour,
                sum(quantity)
         FROM usage_by_hour WHERE tenant = '{tenant}' AND meter = '{meter}' GROUP BY hour"
    );
    let trim = |(key, quantity): (String, i128)| (key.trim_end().to_owned(), quantity);
    let found: Sums = by_sql(cluster, &sql).into_iter().map(trim).collect();
    let api = by_api(&format!(
        "{url}/v1/usage?tenant={tenant}&meter={meter}&window=hour&from=2023-01&to=2027-01&group_by=model"
    ));
    assert!(!found.is_empty());
    assert_eq!(found, api, "{tenant} {meter} by hour and model");
}

fn months_of_one_meter(cluster: &Cluster, url: &str, meter: &str) {
    let sql = format!(
        "SELECT formatDateTime(toStartOfMonth(window_start), '%FT00:00:00Z') AS month, sum(quantity)
         FROM usage_by_day WHERE meter = '{meter}' GROUP BY month"
    );
    let api = by_api(&format!("{url}/v1/usage?meter={meter}&window=month&from=2000-01&to=2199-01"));
    assert_eq!(by_sql(cluster, &sql), api, "{meter} by month");
}

fn top_tenants_of_a_day<'a>(cluster: &Cluster, url: &str, meter: &str, tenants: impl Iterator<Item = &'a str>) {
    let day = cluster.clickhouse(&format!(
        "SELECT formatDateTime(max(window_start), '%F') FROM usage_by_day WHERE meter = '{meter}' FORMAT TabSeparated"
    ));
    let day = day.trim();
    let sql = format!(
        "SELECT tenant, sum(quantity) AS used FROM usage_by_day
         WHERE meter = '{meter}' AND toDate(window_start) = '{day}' GROUP BY tenant ORDER BY used DESC LIMIT 10"
    );
    let mut found: Vec<(i128, String)> = by_sql(cluster, &sql).into_iter().map(|(name, used)| (used, name)).collect();
    found.sort_unstable();
    let window = |tenant: &str| {
        let ask = format!("{url}/v1/usage?tenant={tenant}&meter={meter}&window=day&from=2000-01&to=2199-01");
        by_api(&ask).get(&format!("{day}T00:00:00Z")).map(|used| (*used, tenant.to_owned()))
    };
    let mut asked: Vec<(i128, String)> = tenants.filter_map(window).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(found, asked[asked.len().saturating_sub(10)..], "top tenants of {day} by {meter}");
}
