//! Every error of a map with its key and line, and the maps in `examples/`.

use std::path::Path;

use super::{Format, Map, QuantityRule, QuantityUnit, TenantRule};

const TENANT: &str = "source = 's'\nformat = 'csv'\n[tenant]\nvalue = 't'\n";
const RECORD: &str = "[[record]]\nmeter = 'm'\nquantity = 1\n";

#[test]
fn the_example_maps_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/maps");
    let mut maps = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if let Err(error) = Map::load(&path) {
            panic!("{error}");
        }
        maps += 1;
    }
    assert!(maps >= 4, "only {maps} maps are left in examples/maps");
}

#[test]
fn a_map_becomes_slots_and_rules() {
    let text = r#"
        source = "s"
        format = "jsonl"
        [tenant]
        fields = ["pool", "client"]
        [subject]
        field = "client"
        [dimensions]
        region = "where"
        model = "$.llm.model"
        [[record]]
        meter = "a"
        quantity = { field = "d", unit = "min" }
        where = { field = "ok", equals = true }
        [[record]]
        meter = "a"
        quantity = "0.5"
    "#;
    let map = Map::parse(text).unwrap();
    assert_eq!(map.layout.format, Format::Jsonl);
    assert_eq!(map.fields, ["pool", "client", "$.llm.model", "where", "d", "ok"]);
    let TenantRule::Fields { slots, join } = &map.tenant else { panic!("{:?}", map.tenant) };
    assert_eq!((slots.len(), join.as_str()), (2, "/"));
    assert_eq!(map.subject, Some(slots[1]));
    assert_eq!(map.dimensions[0].0, "model");
    assert!(matches!(map.records[0].quantity, QuantityRule::Field { unit: Some(QuantityUnit::Min), .. }));
    assert_eq!(map.records[0].only_where.as_ref().unwrap().1, "true");
    assert_eq!((map.records[0].earlier_of_meter, map.records[1].earlier_of_meter), (0, 1));
}

#[test]
fn every_error_names_line_key_and_fix() {
    let with_time = |time: &str| format!("{TENANT}{RECORD}[time]\n{time}\n");
    let with_tenant = |tenant: &str| format!("source = 's'\nformat = 'csv'\n[tenant]\n{tenant}\n{RECORD}");
    let with_record = |record: &str| format!("{TENANT}[[record]]\n{record}\n");
    let with_top = |top: &str| format!("{top}\n{TENANT}{RECORD}");
    let cases = [
        (String::new(), "map.toml: missing field `source`"),
        (with_top("soure = 's'"), "map.toml:1: `soure` unknown field `soure`, expected one of `source`"),
        (TENANT.into(), "map.toml: `record` is missing: at least one [[record]]"),
        (TENANT.replace("'s'", "''") + RECORD, "map.toml:1: `source` must not be empty"),
        (
            TENANT.replace("csv", "xml") + RECORD,
            "map.toml:2: `format` unknown variant `xml`, expected `csv` or `jsonl`",
        ),
        (with_top("columns = []"), "map.toml:1: `columns` must name every column"),
        (with_top("delimiter = 'ab'"), "map.toml:1: `delimiter` must be one ASCII character"),
        (with_top("delimiter = '\"'"), "map.toml:1: `delimiter` must be one ASCII character"),
        (
            with_top("columns = ['a']").replace("csv", "jsonl"),
            "map.toml:1: `columns` is only for `format = \"csv\"`; remove it",
        ),
        (
            with_top("columns = ['a']") + "[subject]\nfield = 'b'",
            "map.toml:10: `subject.field` names `b`, which `columns` does not list",
        ),
        (with_time("format = '%s'"), "map.toml:8: `time` missing field `field`"),
        (with_time("field = 't'"), "map.toml:8: `time` must have `format`"),
        (with_time("field = ''\nunit = 's'"), "map.toml:9: `time.field` must name a field"),
        (with_time("field = 't'\nunit = 's'\nformat = '%s'"), "map.toml:10: `time.unit` cannot stand beside"),
        (with_time("field = 't'\nformat = '%s'\norigin = 'x'"), "map.toml:11: `time.origin` is for numbers"),
        (with_time("field = 't'\nformat = '%H:%M'"), "map.toml:10: `time.format` must hold the whole date"),
        (with_time("field = 't'\nformat = '%!'"), "map.toml:10: `time.format` is not a pattern"),
        (with_time("field = 't'\nunit = 'us'"), "map.toml:10: `time.unit` unknown variant `us`, expected `s` or `ms`"),
        (with_time("field = 't'\nunit = 's'\norigin = '2026'"), "map.toml:11: `time.origin` is not an RFC 3339"),
        (with_time("field = 't'\nunit = 's'\nspan = '2 weeks'"), "map.toml:11: `time.span` must be a duration"),
        (with_time("field = 't'\nunit = 's'\nspan = '0s'"), "map.toml:11: `time.span` must be longer than zero"),
        (with_tenant(""), "map.toml:3: `tenant` must have exactly one of"),
        (with_tenant("value = 'a'\nfield = 'b'"), "map.toml:3: `tenant` must have exactly one of"),
        (with_tenant("value = ''"), "map.toml:4: `tenant.value` must not be empty"),
        (with_tenant("fields = []"), "map.toml:4: `tenant.fields` must name at least one"),
        (with_tenant("field = 'a'\njoin = '/'"), "map.toml:5: `tenant.join` is only for `fields`"),
        (with_record("meter = ''\nquantity = 1"), "map.toml:6: `record[0].meter` must not be empty"),
        (with_record("meter = 'm'"), "map.toml:5: `record[0]` missing field `quantity`"),
        (with_record("meter = 'm'\nquantity = 1.5"), "map.toml:7: `record[0].quantity` invalid type: floating point"),
        (with_record("meter = 'm'\nquantity = 'x'"), "map.toml:7: `record[0].quantity` not a decimal number"),
        (
            with_record("meter = 'm'\nquantity = { feild = 'x' }"),
            "map.toml:7: `record[0].quantity.feild` unknown field `feild`",
        ),
        (
            with_record("meter = 'm'\nquantity = { field = 'x', unit = 'd' }"),
            "map.toml:7: `record[0].quantity.unit` unknown variant `d`, expected one of",
        ),
        (
            with_record("meter = 'm'\nquantity = 1\nwhere = { field = 'x', equals = 1.5 }"),
            "map.toml:8: `record[0].where.equals` invalid type: floating point",
        ),
        (
            TENANT.replace("csv", "jsonl") + RECORD + "[dimensions]\nmodel = '$.'",
            "map.toml:9: `dimensions.model` `$.` is not a path",
        ),
    ];
    for (text, expected) in cases {
        let error = Map::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}\n{error}\nshould start with\n{expected}");
    }
}

#[test]
fn seventeen_dimensions_are_one_too_many() {
    let dimensions: String = (0..17).map(|n| format!("d{n} = 'f'\n")).collect();
    let error = Map::parse(&format!("{TENANT}{RECORD}[dimensions]\n{dimensions}")).unwrap_err();
    assert_eq!(error.key, "dimensions");
}
