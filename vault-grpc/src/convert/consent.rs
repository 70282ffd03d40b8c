//! Consents and grants, from requests and as answers.

use vault_core::Error;
use vault_core::id::{DatasetId, Purpose, TenantId};
use vault_core::keys::{Consent, ConsentScope, GivenBy, Grant, GrantOrder, NewConsent};
use vault_proto::v1;

use super::{instant, timestamp};

fn in_list(field: &str, at: usize, error: Error) -> Error {
    match error {
        Error::Invalid { why, .. } => Error::invalid(format!("{field}[{at}]"), why),
        other => other,
    }
}

/// A consent to give.
pub fn new_consent(request: &v1::GrantConsentRequest) -> Result<NewConsent, Error> {
    let datasets = request.datasets.iter().enumerate();
    let datasets = datasets.map(|(at, name)| DatasetId::parse(name).map_err(|error| in_list("datasets", at, error)));
    let purposes = request.purposes.iter().enumerate();
    let purposes = purposes.map(|(at, name)| Purpose::parse(name).map_err(|error| in_list("purposes", at, error)));
    let scope = match (request.all_datasets, request.datasets.is_empty()) {
        (true, true) => ConsentScope::All,
        (true, false) => return Err(Error::invalid("all_datasets", "must not stand beside datasets")),
        (false, _) => ConsentScope::Datasets(datasets.collect::<Result<_, _>>()?),
    };
    Ok(NewConsent {
        scope,
        purposes: purposes.collect::<Result<_, _>>()?,
        from: instant("start_time", request.start_time.as_ref())?,
        until: instant("end_time", request.end_time.as_ref())?,
    })
}

/// The library's names of fields as the API names them.
pub fn api_field(error: Error) -> Error {
    match error {
        Error::Invalid { field, why } if field == "from" => Error::invalid("start_time", why),
        Error::Invalid { field, why } if field == "until" => Error::invalid("end_time", why),
        other => other,
    }
}

/// The same for a grant's fields, which stand in its order.
pub fn order_field(error: Error) -> Error {
    match api_field(error) {
        Error::Invalid { field, why } if field != "reason" && field != "tenant" => {
            Error::invalid(format!("order.{field}"), why)
        }
        other => other,
    }
}

fn act(given: &GivenBy) -> v1::ConsentAct {
    v1::ConsentAct {
        time: Some(timestamp(given.at)),
        end_user_pseudonym: given.end_user.to_string(),
        issuer: given.issuer.clone(),
        workload: given.workload.clone(),
    }
}

/// A consent as an answer.
pub fn consent(consent: &Consent) -> v1::Consent {
    let (datasets, all_datasets) = match &consent.scope {
        ConsentScope::All => (Vec::new(), true),
        ConsentScope::Datasets(named) => (named.iter().map(ToString::to_string).collect(), false),
    };
    v1::Consent {
        consent: consent.id.to_string(),
        tenant: consent.tenant.to_string(),
        datasets,
        all_datasets,
        purposes: consent.purposes.iter().map(ToString::to_string).collect(),
        start_time: Some(timestamp(consent.from)),
        end_time: consent.until.map(timestamp),
        granted: Some(act(&consent.granted)),
        withdrawn: consent.withdrawn.as_ref().map(act),
        consent_sha256: consent.sha256.to_string(),
    }
}

/// A grant to ask for.
pub fn order(tenant: &TenantId, order: Option<&v1::GrantOrder>) -> Result<GrantOrder, Error> {
    let order = order.ok_or_else(|| Error::invalid("order", "is required"))?;
    let until = instant("until", order.end_time.as_ref()).map_err(order_field)?;
    Ok(GrantOrder {
        tenant: tenant.clone(),
        dataset: DatasetId::parse(&order.dataset).map_err(order_field)?,
        workload: order.workload.clone(),
        roles: order.roles.clone(),
        until: until.ok_or_else(|| Error::invalid("order.end_time", "is required"))?,
    })
}

/// What a grant gives whom, as an answer.
pub fn grant_order(order: &GrantOrder) -> v1::GrantOrder {
    v1::GrantOrder {
        dataset: order.dataset.to_string(),
        workload: order.workload.clone(),
        roles: order.roles.clone(),
        end_time: Some(timestamp(order.until)),
    }
}

/// A grant as an answer.
pub fn grant(grant: &Grant) -> v1::Grant {
    v1::Grant {
        grant: grant.id.to_string(),
        tenant: grant.order.tenant.to_string(),
        order: Some(grant_order(&grant.order)),
        reason: grant.reason.clone(),
        requester: grant.requester.clone(),
        approver: grant.approver.clone(),
        create_time: Some(timestamp(grant.granted)),
        revoke_time: grant.revoked.as_ref().map(|revoked| timestamp(revoked.at)),
        revoker: grant.revoked.as_ref().map(|revoked| revoked.by.clone()).unwrap_or_default(),
        request_sha256: grant.request_sha256.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_the_api_names_them() {
        let field = |request: &v1::GrantConsentRequest| match new_consent(request) {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let good = v1::GrantConsentRequest {
            datasets: vec!["customers".into()],
            purposes: vec!["billing".into()],
            ..Default::default()
        };
        assert!(new_consent(&good).is_ok());
        let datasets = vec!["customers".into(), "Customers".into()];
        assert_eq!(field(&v1::GrantConsentRequest { datasets, ..good.clone() }), "datasets[1]");
        assert_eq!(
            field(&v1::GrantConsentRequest { purposes: vec!["b\u{200b}".into()], ..good.clone() }),
            "purposes[0]"
        );
        assert_eq!(field(&v1::GrantConsentRequest { all_datasets: true, ..good.clone() }), "all_datasets");
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            let at = Some(vault_proto::Timestamp { seconds, nanos });
            assert_eq!(field(&v1::GrantConsentRequest { start_time: at, ..good.clone() }), "start_time", "{at:?}");
            assert_eq!(field(&v1::GrantConsentRequest { end_time: at, ..good.clone() }), "end_time", "{at:?}");
        }
        let acme = TenantId::parse("acme").unwrap();
        let field = |given: Option<&v1::GrantOrder>| match order(&acme, given) {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(None), "order");
        assert_eq!(field(Some(&v1::GrantOrder::default())), "order.dataset");
        assert_eq!(field(Some(&v1::GrantOrder { dataset: "orders".into(), ..Default::default() })), "order.end_time");
        let (Error::Invalid { field, .. }, Error::Invalid { field: of_order, .. }) =
            (api_field(Error::invalid("until", "w")), order_field(Error::invalid("until", "w")))
        else {
            panic!("another error")
        };
        assert_eq!((field, of_order), ("end_time".to_owned(), "order.end_time".to_owned()));
    }
}
