output "root_key" {
  description = "`root.key` of the gateway's configuration."
  value       = aws_kms_key.root.arn
}

output "role_arn" {
  description = "The role that the gateway takes."
  value       = local.vault
}

output "account" {
  description = "The account that owns the key."
  value       = data.aws_caller_identity.current.account_id
}
