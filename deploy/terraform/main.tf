# A root key in AWS KMS with the least that the vault needs; docs/aws-kms.md explains each condition.

data "aws_caller_identity" "current" {}

locals {
  make_role = var.vault_role_arn == null
  vault     = local.make_role ? aws_iam_role.vault[0].arn : var.vault_role_arn
  actions   = ["kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"]
  exact = merge(
    {
      app      = ["blindvault"]
      instance = [var.instance]
      purpose  = var.purposes
    },
    var.tenant == null ? {} : { tenant = [var.tenant] },
  )
  names       = ["app", "instance", "purpose", "tenant", "tenant_key_version"]
  oidc_issuer = var.oidc_provider_arn == null ? "" : split("oidc-provider/", var.oidc_provider_arn)[1]
}

data "aws_iam_policy_document" "key" {
  # No cryptographic action, no grant, no re-encryption. Whoever may change this policy can still let themselves in:
  # alarm on kms:PutKeyPolicy in CloudTrail.
  statement {
    sid = "Administration"
    actions = [
      "kms:CancelKeyDeletion",
      "kms:Describe*",
      "kms:DisableKey",
      "kms:EnableKey",
      "kms:EnableKeyRotation",
      "kms:Get*",
      "kms:List*",
      "kms:PutKeyPolicy",
      "kms:ReplicateKey",
      "kms:ScheduleKeyDeletion",
      "kms:TagResource",
      "kms:UntagResource",
      "kms:UpdateKeyDescription",
      "kms:CreateAlias",
      "kms:DeleteAlias",
      "kms:UpdateAlias",
    ]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = var.administrators
    }
  }

  statement {
    sid       = "VaultWrapsAndUnwraps"
    actions   = local.actions
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = [local.vault]
    }

    dynamic "condition" {
      for_each = local.exact
      content {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:${condition.key}"
        values   = condition.value
      }
    }

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "kms:EncryptionContextKeys"
      values   = local.names
    }
  }
}

resource "aws_kms_key" "root" {
  description             = "Blindvault root key of instance ${var.instance}"
  key_usage               = "ENCRYPT_DECRYPT"
  multi_region            = var.multi_region
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
  policy                  = data.aws_iam_policy_document.key.json

  lifecycle {
    # Without this key nothing under it ever opens again.
    prevent_destroy = true
  }
}

# For people. The vault is given the ARN: an alias can be moved.
resource "aws_kms_alias" "root" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.root.key_id
}

data "aws_iam_policy_document" "assume" {
  count = local.make_role ? 1 : 0

  dynamic "statement" {
    for_each = var.oidc_provider_arn == null ? [1] : []
    content {
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = ["ec2.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = var.oidc_provider_arn == null ? [] : [1]
    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [var.oidc_provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.oidc_issuer}:sub"
        values   = ["system:serviceaccount:${var.service_account}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.oidc_issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role" "vault" {
  count              = local.make_role ? 1 : 0
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.assume[0].json
}

resource "aws_iam_role_policy" "vault" {
  count = local.make_role ? 1 : 0
  name  = "${var.name}-root-key"
  role  = aws_iam_role.vault[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "RootKey"
      Effect   = "Allow"
      Action   = local.actions
      Resource = aws_kms_key.root.arn
    }]
  })
}
