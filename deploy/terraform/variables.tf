variable "name" {
  description = "Name of the role and, behind alias/, of the key."
  type        = string
  default     = "blindvault"
}

variable "instance" {
  description = "`instance` of the gateway's configuration; the key is of use to this installation only."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9._-]{1,63}$", var.instance))
    error_message = "1 to 63 of the characters a-z 0-9 . _ -"
  }
}

variable "tenant" {
  description = "If set, the key wraps this tenant's keys and no other's."
  type        = string
  default     = null
}

variable "purposes" {
  description = "What the key may wrap. Add \"store-key\" where it wraps the key of a database's rows."
  type        = list(string)
  default     = ["tenant-key", "tenant-key-outer"]
}

variable "multi_region" {
  description = "Whether replicas in other regions may be made. Cannot be changed later."
  type        = bool
  default     = false
}

variable "deletion_window_days" {
  description = "Days between the order to delete the key and its deletion, after which nothing under it opens again."
  type        = number
  default     = 30
}

variable "administrators" {
  description = "ARNs of those who administer the key. They get no cryptographic action."
  type        = list(string)
}

variable "vault_role_arn" {
  description = "The vault's role, if it exists already (in a customer's account: the role in the vault's account). Null makes one."
  type        = string
  default     = null
}

variable "oidc_provider_arn" {
  description = "The EKS cluster's OIDC provider, for a role for a service account. Null lets EC2 instances take the role."
  type        = string
  default     = null
}

variable "service_account" {
  description = "NAMESPACE:NAME of the service account that takes the role, with oidc_provider_arn."
  type        = string
  default     = "blindvault:gateway"
}
