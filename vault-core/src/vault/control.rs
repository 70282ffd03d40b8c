//! The control plane: tenants, datasets and their keys as objects. Nothing here returns plaintext or key material.

use super::Vault;
use crate::audit::Recorded;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, DatasetId, Fingerprint, Reason, RequestId, Subject, TenantId};
use crate::keys::{Approval, Dataset, DatasetProperties, Lines, Ordered, Tenant, TenantState, Turn};
use crate::kms::Custody;
use crate::policy::{
    ControlAction, ControlRequest, CreateDataset, CreateTenant, GetDataset, GetTenant, ListDatasets, ListTenants,
    Permit, ResumeTenant, RotateDataKeys, RotateTenantKey, SuspendTenant,
};
use crate::principal::Operator;

/// Who makes a control call, and why.
#[derive(Debug, Clone, Copy)]
pub struct ControlCall<'a> {
    /// The operator.
    pub who: &'a Operator,
    /// Names the call in the audit log.
    pub request: RequestId,
    /// The operator's own words, for the audit entry.
    pub reason: Option<&'a Reason>,
}

/// What became of a rotation that names a custody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustodyChange {
    /// It is the custody that the tenant has: the key was rotated.
    None(Tenant),
    /// The tenant is as it was, and this waits for others.
    Asked(Tenant, Box<Approval>),
}

/// What a control call is about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask<'a> {
    pub tenant: Option<&'a TenantId>,
    pub dataset: Option<&'a DatasetId>,
    pub subject: Option<&'a Subject>,
    pub custody: Option<&'a Custody>,
}

/// What a control call did, for the entry at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub detail: &'static str,
    pub approval: Option<(ApprovalId, Fingerprint)>,
}

impl About {
    /// What most calls say.
    pub(super) const fn executed() -> Self {
        Self { detail: "executed", approval: None }
    }
}

impl Vault {
    /// Policy, intent, `work`, and the entry that it was executed; that entry is durable before the answer.
    async fn operate<A: ControlAction, T>(
        &self,
        call: &ControlCall<'_>,
        about: (Option<&TenantId>, Option<&DatasetId>),
        work: impl AsyncFnOnce(&Recorded<Permit<A>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.operate_under(call, about, None, work).await
    }

    /// The same for an action that may name a custody.
    async fn operate_under<A: ControlAction, T>(
        &self,
        call: &ControlCall<'_>,
        (tenant, dataset): (Option<&TenantId>, Option<&DatasetId>),
        custody: Option<&Custody>,
        work: impl AsyncFnOnce(&Recorded<Permit<A>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let ask = Ask { tenant, dataset, custody, subject: None };
        self.operate_about(call, ask, async |recorded| Ok((work(recorded).await?, About::executed()))).await
    }

    /// The same for an action whose last entry says what it was about.
    pub(super) async fn operate_about<A: ControlAction, T>(
        &self,
        call: &ControlCall<'_>,
        ask: Ask<'_>,
        work: impl AsyncFnOnce(&Recorded<Permit<A>>) -> Result<(T, About), Error>,
    ) -> Result<T, Error> {
        self.policies_ready()?;
        let request = ControlRequest {
            tenant: ask.tenant.cloned(),
            dataset: ask.dataset.cloned(),
            subject: ask.subject.cloned(),
            reason: call.reason.cloned(),
            custody: ask.custody.cloned(),
            request: call.request,
        };
        let permit = match self.authorizer.authorize_control::<A>(call.who, request, self.clock.now()) {
            Ok(permit) => permit,
            Err(refusal) => return Err(self.refuse(&refusal).await),
        };
        let recorded = around(Step::ControlIntent, self.intend(permit, None)).await?;
        match work(&recorded).await {
            Ok((done, About { detail, approval: None })) => {
                around(Step::ControlExecuted, self.audit.control(&recorded, detail, None)).await?;
                Ok(done)
            }
            Ok((done, About { detail, approval: Some(approval) })) => {
                around(Step::ControlExecuted, self.audit.control_of(&recorded, detail, approval)).await?;
                Ok(done)
            }
            Err(error) => self.settle(recorded, Err(error)).await,
        }
    }

    /// Makes a tenant and its first tenant key, under the vault's default custody.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::AlreadyExists`], [`Error::Unavailable`]; [`Error::RootKey`] naming the root key that
    /// did not make or wrap the tenant key.
    pub async fn create_tenant(&self, call: &ControlCall<'_>, tenant: &TenantId) -> Result<Tenant, Error> {
        self.create_tenant_under(call, tenant, self.keys.roots().default_custody()).await
    }

    /// Makes a tenant and its first tenant key, under a custody of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::create_tenant`]; [`Error::Invalid`] naming the root key that this vault is not given.
    pub async fn create_tenant_under(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        custody: &Custody,
    ) -> Result<Tenant, Error> {
        let create = async |r: &_| self.keys.create_tenant(r).await;
        self.operate_under::<CreateTenant, _>(call, (Some(tenant), None), Some(custody), create).await
    }

    /// Reads a tenant's state.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn get_tenant(&self, call: &ControlCall<'_>, tenant: &TenantId) -> Result<Tenant, Error> {
        self.operate::<GetTenant, _>(call, (Some(tenant), None), async |r| self.keys.get_tenant(r).await).await
    }

    /// Lists up to `limit` tenants after one.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn list_tenants(
        &self,
        call: &ControlCall<'_>,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Vec<Tenant>, Error> {
        let list = async |r: &_| self.keys.list_tenants(r, after, limit).await;
        self.operate::<ListTenants, _>(call, (None, None), list).await
    }

    /// Stops all data actions of a tenant. With a `revision`, only if the tenant is still at that one.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn suspend_tenant(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        revision: Option<u64>,
    ) -> Result<Tenant, Error> {
        let suspend = async |r: &_| self.keys.suspend_tenant(r, revision).await;
        self.operate::<SuspendTenant, _>(call, (Some(tenant), None), suspend).await
    }

    /// Asks for a suspension to be lifted. Nothing happens until others approve it; then only if the tenant is still as it
    /// is now. With a `revision`, only if it is at that one.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Conflict`]; [`Error::FailedPrecondition`] if it is not suspended;
    /// [`Error::Invalid`] naming `reason` if the call has none; [`Error::Unavailable`].
    pub async fn resume_tenant(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        revision: Option<u64>,
    ) -> Result<Approval, Error> {
        let reason = call.reason.ok_or_else(|| Error::invalid("reason", "is required"))?;
        let ask = Ask { tenant: Some(tenant), ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<ResumeTenant>>| {
            let ordered = Ordered::ResumeTenant(tenant.clone(), self.keys.revision_of(tenant, revision).await?);
            self.pend(recorded, &ordered, Lines::default(), reason).await
        })
        .await
    }

    /// Begins or goes on, then works until the rotation is finished or the permit runs out.
    async fn rotate(
        &self,
        recorded: &Recorded<Permit<RotateTenantKey>>,
        revision: Option<u64>,
    ) -> Result<Tenant, Error> {
        let begun = self.keys.begin_rotation(recorded, revision).await?;
        while self.has_time(recorded) {
            match self.rotation_turn(&begun.id).await? {
                Turn::More => {}
                Turn::Ready(()) | Turn::Idle => break,
            }
        }
        self.keys.see_tenant(recorded).await
    }

    /// Makes a new tenant key version, under the custody of the one before, and rewraps the tenant's data keys under
    /// it, in steps. Goes on with a rotation that did not come to its end. [`Tenant::rotation`] of the answer says how far
    /// it got: if it is not finished when the call's permit runs out, [`Vault::tend`] or the next call goes on. With a
    /// `revision`, only if the tenant is still at that one.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Conflict`], [`Error::Unavailable`]; [`Error::RootKey`] naming the
    /// root key that did not make or wrap the tenant key.
    pub async fn rotate_tenant_key(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        revision: Option<u64>,
    ) -> Result<Tenant, Error> {
        let rotate = async |r: &_| self.rotate(r, revision).await;
        self.operate::<RotateTenantKey, _>(call, (Some(tenant), None), rotate).await
    }

    /// The same under another custody: this is how a tenant's custody changes. Nothing happens until others approve it;
    /// then only if the tenant is still as it is now. Under the custody that it has, it is rotated at once.
    ///
    /// # Errors
    /// As [`Self::rotate_tenant_key`]; [`Error::Invalid`] naming the root key that this vault is not given, or `reason` if
    /// the call has none; [`Error::FailedPrecondition`] also while a rotation runs.
    pub async fn rotate_tenant_key_to(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        revision: Option<u64>,
        custody: &Custody,
    ) -> Result<CustodyChange, Error> {
        let reason = call.reason.ok_or_else(|| Error::invalid("reason", "is required"))?;
        let ask = Ask { tenant: Some(tenant), custody: Some(custody), ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<RotateTenantKey>>| {
            let now = self.keys.see_tenant(recorded).await?;
            if now.custody == *custody && now.state != TenantState::Destroyed {
                return Ok((CustodyChange::None(self.rotate(recorded, revision).await?), About::executed()));
            }
            let seen = self.keys.revision_of(tenant, revision.or(Some(now.revision))).await?;
            let ordered = Ordered::ChangeCustody(tenant.clone(), custody.clone(), seen);
            let (asked, about) = self.pend(recorded, &ordered, Lines::default(), reason).await?;
            Ok((CustodyChange::Asked(now, Box::new(asked)), about))
        })
        .await
    }

    /// Makes new versions of a tenant's data keys, of one dataset or of all.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn rotate_data_keys(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        dataset: Option<&DatasetId>,
    ) -> Result<u64, Error> {
        let rotate = async |r: &_| self.keys.rotate_data_keys(r).await;
        self.operate::<RotateDataKeys, _>(call, (Some(tenant), dataset), rotate).await
    }

    /// Declares a dataset of a tenant.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::AlreadyExists`], [`Error::Unavailable`].
    pub async fn create_dataset(
        &self,
        call: &ControlCall<'_>,
        (tenant, dataset): (&TenantId, &DatasetId),
        classification: Option<String>,
        residency: Option<String>,
    ) -> Result<Dataset, Error> {
        let properties = DatasetProperties { classification, residency, ..DatasetProperties::default() };
        self.create_dataset_as(call, (tenant, dataset), properties).await
    }

    /// The same with all that can be declared of a dataset.
    ///
    /// # Errors
    /// As [`Self::create_dataset`].
    pub async fn create_dataset_as(
        &self,
        call: &ControlCall<'_>,
        (tenant, dataset): (&TenantId, &DatasetId),
        properties: DatasetProperties,
    ) -> Result<Dataset, Error> {
        let create = async |r: &_| self.keys.create_dataset(r, properties).await;
        self.operate::<CreateDataset, _>(call, (Some(tenant), Some(dataset)), create).await
    }

    /// Reads a dataset's declaration.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn get_dataset(
        &self,
        call: &ControlCall<'_>,
        (tenant, dataset): (&TenantId, &DatasetId),
    ) -> Result<Dataset, Error> {
        let get = async |r: &_| self.keys.get_dataset(r).await;
        self.operate::<GetDataset, _>(call, (Some(tenant), Some(dataset)), get).await
    }

    /// Lists up to `limit` datasets of a tenant after one.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn list_datasets(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        after: Option<&DatasetId>,
        limit: usize,
    ) -> Result<Vec<Dataset>, Error> {
        let list = async |r: &_| self.keys.list_datasets(r, after, limit).await;
        self.operate::<ListDatasets, _>(call, (Some(tenant), None), list).await
    }
}
