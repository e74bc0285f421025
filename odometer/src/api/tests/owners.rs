//! `/v1/owners`.

use odometer_schemas::partition::partition_of;
use serde_json::json;

use super::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_has_its_owner_and_a_tenant_one_of_them() {
    let rig = Rig::start();
    let answer = rig.good("/v1/owners").await;
    let partitions = u32::try_from(answer["partitions"].as_u64().unwrap()).unwrap();
    let owner = |partition: u32| json!({"partition": partition, "epoch": 1, "url": null});
    assert_eq!(answer["owners"], json!((0..partitions).map(owner).collect::<Vec<_>>()));
    let of_tenant = rig.good("/v1/owners?tenant=pool%2F7").await;
    assert_eq!(of_tenant, json!({"partitions": partitions, "owners": [owner(partition_of("pool/7", partitions))]}));
    rig.problem("/v1/owners?tenant=", 422).await;
    rig.problem("/v1/owners?partition=1", 422).await;
}
