//! The steps: what must work works, what must be refused is refused, and why.

use std::collections::BTreeSet;

use vault_client::{
    AccessLogClient, BatchItem, ClientError, Code, ConsentClient, EndUserToken, OperatorClient, Sealed, Target,
    VaultClient,
};
use vault_proto::v1::{Consent, ListAccessesRequest, Plane};

use super::Failed;
use super::data::{Field, fields};
use super::report::Report;
use super::scene::{At, Scene};

const ACME: (&str, &str) = ("acme", "billing");
const GLOBEX: (&str, &str) = ("globex", "storefront");
const DATASET: &str = "customers";
const PURPOSE: &str = "billing";
/// Values a call carries; the API allows 1,000.
const BATCH: usize = 500;

pub(super) async fn all(scene: &Scene, report: &mut Report) -> Result<(), Failed> {
    let operator = scene.operator().await?;
    tenants(&operator, report).await?;
    let fields = fields()?;
    let (of_acme, of_globex) = fields.split_at(fields.len() / 2);
    let billing = scene.workload(ACME.1).await?;
    let storefront = scene.workload(GLOBEX.1).await?;
    let sealed = round_trip(&billing, ACME.0, of_acme, report).await?;
    round_trip(&storefront, GLOBEX.0, of_globex, report).await?;
    let (Some(field), Some(envelope)) = (of_acme.first(), sealed.first()) else {
        return Err("the shipped records are empty".into());
    };
    let old = One { field, envelope };
    another_tenants_workload(&storefront, &old, report).await;
    operator_at_the_data_plane(scene, report).await?;
    data_calls_at_the_control_plane(scene, &old, report).await?;
    human_under_the_workload_ca(scene, report).await?;
    operator_by_token(scene, report).await?;
    flipped_bit(&billing, &old, report).await;
    rotation(&operator, &billing, &old, report).await?;
    suspension((&operator, &scene.second_operator().await?), &billing, &old, report).await
}

/// One value and its envelope.
struct One<'a> {
    field: &'a Field,
    envelope: &'a Sealed,
}

fn target(tenant: &str, field: &Field) -> Target {
    Target::new(tenant, DATASET, PURPOSE).subject(&field.customer).context("field", &field.column)
}

/// The answer to something that must be refused: refused as expected, and in words.
fn refused<T>(result: Result<T, ClientError>, as_expected: impl FnOnce(&ClientError) -> bool) -> (bool, String) {
    match result {
        Ok(_) => (false, "was NOT refused".into()),
        Err(error) => {
            let why = match error.tls() {
                Some(tls) => format!("TLS handshake: {tls}"),
                None => error.to_string(),
            };
            (as_expected(&error), format!("refused: {why}"))
        }
    }
}

async fn tenants(operator: &OperatorClient, report: &mut Report) -> Result<(), Failed> {
    let made = report
        .time(async {
            for (tenant, _) in [ACME, GLOBEX] {
                operator.create_tenant(tenant, None, "demo").await?;
                operator.create_dataset(tenant, DATASET, "personal", "eu", "demo").await?;
            }
            operator.list_tenants(0, "").await
        })
        .await?;
    let names: Vec<_> = made.tenants.iter().map(|tenant| tenant.tenant.as_str()).collect();
    report.step(
        "an operator makes two tenants, each with its own tenant key, and a dataset",
        names.len() == 2,
        names.join(", "),
    );
    Ok(())
}

fn item(field: &Field, make: impl FnOnce() -> BatchItem) -> BatchItem {
    make().subject(&field.customer).context("field", &field.column)
}

async fn round_trip(
    client: &VaultClient,
    tenant: &str,
    fields: &[Field],
    report: &mut Report,
) -> Result<Vec<Sealed>, Failed> {
    let people = fields.iter().map(|field| &field.customer).collect::<BTreeSet<_>>().len();
    let sealed = report
        .time(async {
            let mut sealed = Vec::with_capacity(fields.len());
            for chunk in fields.chunks(BATCH) {
                let items = chunk
                    .iter()
                    .map(|field| item(field, || BatchItem::plaintext(DATASET, field.value.as_bytes())))
                    .collect();
                for result in client.batch_encrypt(tenant, PURPOSE, items).await? {
                    sealed.push(result?);
                }
            }
            Ok::<_, ClientError>(sealed)
        })
        .await?;
    let readable = sealed.iter().zip(fields).filter(|(sealed, field)| {
        field.value.len() > 3 && sealed.envelope.windows(field.value.len()).any(|w| w == field.value.as_bytes())
    });
    let readable = readable.count();
    report.step(
        format!("{tenant}: {} values of {people} customers encrypted, a data key for each person", fields.len()),
        sealed.len() == fields.len() && readable == 0,
        format!("{} envelopes, each 94 bytes longer than its value; {readable} readable", sealed.len()),
    );
    let equal = report
        .time(async {
            let mut equal = 0;
            for (chunk, envelopes) in fields.chunks(BATCH).zip(sealed.chunks(BATCH)) {
                let items = chunk
                    .iter()
                    .zip(envelopes)
                    .map(|(field, sealed)| item(field, || BatchItem::envelope(DATASET, sealed.envelope.clone())))
                    .collect();
                let opened = client.batch_decrypt(tenant, PURPOSE, items).await?;
                equal += opened
                    .iter()
                    .zip(chunk)
                    .filter(|(opened, field)| {
                        opened.as_ref().is_ok_and(|o| o.plaintext.as_bytes() == field.value.as_bytes())
                    })
                    .count();
            }
            Ok::<_, ClientError>(equal)
        })
        .await?;
    report.step(
        format!("{tenant}: read back and compared"),
        equal == fields.len(),
        format!("{equal} of {} values equal", fields.len()),
    );
    Ok(sealed)
}

async fn another_tenants_workload(storefront: &VaultClient, old: &One<'_>, report: &mut Report) {
    let tried = report.time(storefront.decrypt(&target(ACME.0, old.field), old.envelope.envelope.clone())).await;
    let (held, why) = refused(tried, |error| error.code() == Code::PermissionDenied);
    report.step("globex's workload asks for acme's data", held, why);
}

async fn operator_at_the_data_plane(scene: &Scene, report: &mut Report) -> Result<(), Failed> {
    let endpoint = scene.with(At::Data, &scene.operator_name())?;
    let tried = report.time(VaultClient::connect(&endpoint)).await;
    let (held, why) = refused(tried, |error| error.tls().is_some());
    report.step("the operator's certificate at the data plane", held, why);
    Ok(())
}

async fn data_calls_at_the_control_plane(scene: &Scene, old: &One<'_>, report: &mut Report) -> Result<(), Failed> {
    let channel = scene.with(At::Control, &scene.operator_name())?.channel().await?;
    let (client, consents) = (VaultClient::from_channel(channel.clone()), ConsentClient::from_channel(channel.clone()));
    let accesses = AccessLogClient::from_channel(channel);
    let target = target(ACME.0, old.field);
    let token = EndUserToken::new("nobody");
    let envelope = || old.envelope.envelope.clone();
    let items = || vec![item(old.field, || BatchItem::envelope(DATASET, envelope()))];
    let codes = report
        .time(async {
            [
                client.encrypt(&target, b"x").await.err().map(|e| e.code()),
                client.decrypt(&target, envelope()).await.err().map(|e| e.code()),
                client.rewrap(&target, envelope()).await.err().map(|e| e.code()),
                client.batch_encrypt(ACME.0, PURPOSE, items()).await.err().map(|e| e.code()),
                client.batch_decrypt(ACME.0, PURPOSE, items()).await.err().map(|e| e.code()),
                client.encrypt_stream(&target, &b"x"[..], &mut Vec::new()).await.err().map(|e| e.code()),
                client.decrypt_stream(&target, &envelope()[..], &mut Vec::new()).await.err().map(|e| e.code()),
                consents
                    .grant(&token, Consent { tenant: ACME.0.to_owned(), ..Consent::default() })
                    .await
                    .err()
                    .map(|e| e.code()),
                consents.withdraw(&token, ACME.0, "").await.err().map(|e| e.code()),
                consents.list(&token, ACME.0, 1, "").await.err().map(|e| e.code()),
                accesses.page(ListAccessesRequest::default()).await.err().map(|e| e.code()),
            ]
        })
        .await;
    let data_calls = vault_proto::rpcs().iter().filter(|rpc| rpc.plane == Plane::Data).count();
    report.step(
        "the operator tries every data call at the control plane",
        codes.len() == data_calls && codes.iter().all(|code| *code == Some(Code::Unimplemented)),
        format!("{} of {data_calls} data calls do not exist there (UNIMPLEMENTED)", codes.len()),
    );
    Ok(())
}

async fn human_under_the_workload_ca(scene: &Scene, report: &mut Report) -> Result<(), Failed> {
    for (who, leaf) in scene.humans() {
        let endpoint = scene.issued(&leaf)?;
        let tried = report.time(VaultClient::connect(&endpoint)).await;
        let (held, why) = refused(tried, |error| error.tls().is_some());
        report.step(format!("a person's certificate, issued by the workload CA itself: {who}"), held, why);
    }
    Ok(())
}

async fn operator_by_token(scene: &Scene, report: &mut Report) -> Result<(), Failed> {
    let [alone, with_bobs, with_own] = report.time(scene.by_token()).await?;
    for (what, tried) in [("with the certificate alone", alone), ("with another operator's token", with_bobs)] {
        let (held, why) = refused(tried, |error| error.code() == Code::Unauthenticated);
        report.step(format!("where operators have to sign in: {what}"), held, why);
    }
    let said = with_own.as_ref().err().map_or_else(|| "answered".to_owned(), ToString::to_string);
    report.step("where operators have to sign in: with certificate and token", with_own.is_ok(), said);
    Ok(())
}

async fn flipped_bit(billing: &VaultClient, old: &One<'_>, report: &mut Report) {
    let mut flipped = old.envelope.envelope.to_vec();
    if let Some(last) = flipped.last_mut() {
        *last ^= 1;
    }
    let tried = report.time(billing.decrypt(&target(ACME.0, old.field), flipped)).await;
    let (held, why) = refused(tried, |error| error.reason() == "UNOPENABLE");
    report.step("one bit of an envelope flipped", held, why);
}

async fn rotation(
    operator: &OperatorClient,
    billing: &VaultClient,
    old: &One<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let (target, value) = (target(ACME.0, old.field), old.field.value.as_bytes());
    let (keys, tenant) = report
        .time(async {
            let keys = operator.rotate_data_keys(ACME.0, None, "demo").await?;
            Ok::<_, ClientError>((keys, operator.rotate_tenant_key(ACME.0, "demo").await?))
        })
        .await?;
    let version = tenant.tenant.map_or(0, |tenant| tenant.active_key_version);
    report.step(
        "acme: all data keys and the tenant key rotated",
        keys > 0 && version == 2,
        format!(
            "{keys} data keys at a new version; {} rewrapped under tenant key version {version}",
            tenant.rewrapped_data_keys
        ),
    );
    let opened = report.time(billing.decrypt(&target, old.envelope.envelope.clone())).await?;
    report.step(
        "an envelope from before the rotation",
        opened.plaintext.as_bytes() == value && opened.key_version == 1,
        format!("opens with version {}", opened.key_version),
    );
    let (rewrapped, opened) = report
        .time(async {
            let rewrapped = billing.rewrap(&target, old.envelope.envelope.clone()).await?;
            let opened = billing.decrypt(&target, rewrapped.envelope.clone()).await?;
            Ok::<_, ClientError>((rewrapped, opened))
        })
        .await?;
    report.step(
        "the same envelope rewrapped, without its value leaving the vault",
        opened.plaintext.as_bytes() == value && rewrapped.key_version == 2,
        format!("now under version {}, and opens", rewrapped.key_version),
    );
    Ok(())
}

async fn suspension(
    (operator, other): (&OperatorClient, &OperatorClient),
    billing: &VaultClient,
    old: &One<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let target = target(ACME.0, old.field);
    operator.suspend_tenant(ACME.0, "demo").await?;
    let tried = report.time(billing.decrypt(&target, old.envelope.envelope.clone())).await;
    let (held, why) = refused(tried, |error| error.code() == Code::PermissionDenied);
    report.step("acme suspended: its own workload asks", held, why);
    let asked = operator.resume_tenant(ACME.0, "demo").await?;
    let own = report.time(operator.approve(&asked, None, "demo")).await;
    let (held, why) = refused(own, |error| error.code() == Code::FailedPrecondition);
    report.step("the operator who asked to resume it approves that alone", held, why);
    other.approve(&asked, None, "demo").await?;
    let again = report.time(billing.decrypt(&target, old.envelope.envelope.clone())).await;
    let held = again.is_ok_and(|opened| opened.plaintext.as_bytes() == old.field.value.as_bytes());
    report.step("acme resumed, as another operator approved", held, if held { "opens again" } else { "does not open" });
    Ok(())
}
