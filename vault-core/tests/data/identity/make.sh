#!/bin/sh
# Makes the certificates that rcgen cannot: weak keys and signatures, RSA-PSS, and good ones beside them. Run once, with
# OpenSSL 3; the keys are thrown away. Valid for 100 years from the day they were made.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat > ext <<'EXT'
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth, serverAuth
subjectAltName = URI:spiffe://prod.example/ns/shop/sa/billing
EXT

key() { openssl genpkey -out "$1.key" -algorithm "$2" ${3:+-pkeyopt "$3"} 2>/dev/null; }
# name, subject, section, signing options…
root() {
    name=$1 subject=$2; shift 2
    openssl req -new -key "$name.key" -subj "/CN=$subject" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -signkey "$name.key" -days 36500 -extfile ext -extensions ca "$@" \
        -out "$name.pem" 2>/dev/null
    openssl x509 -in "$name.pem" -outform DER -out "$out/$name.der"
}
issue() {
    name=$1 issuer=$2 section=$3; shift 3
    openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA "$issuer.pem" -CAkey "$issuer.key" -CAcreateserial -days 36500 \
        -extfile ext -extensions "$section" "$@" -out "$name.pem" 2>/dev/null
    openssl x509 -in "$name.pem" -outform DER -out "$out/$name.der"
}

key root RSA rsa_keygen_bits:2048;         root root "fixture root" -sha256
key root-rsa1024 RSA rsa_keygen_bits:1024; root root-rsa1024 "weak root" -sha256

key leaf RSA rsa_keygen_bits:2048;         issue leaf root leaf -sha256
key leaf-pss RSA rsa_keygen_bits:2048
issue leaf-pss root leaf -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
key leaf-p384 EC ec_paramgen_curve:P-384;  issue leaf-p384 root leaf -sha512
key leaf-ed25519 ED25519;                  issue leaf-ed25519 root leaf -sha256
key leaf-sha1 RSA rsa_keygen_bits:2048;    issue leaf-sha1 root leaf -sha1
key leaf-rsa1024 RSA rsa_keygen_bits:1024; issue leaf-rsa1024 root leaf -sha256
key leaf-p521 EC ec_paramgen_curve:P-521;  issue leaf-p521 root leaf -sha256
key ca-rsa1024 RSA rsa_keygen_bits:1024;   issue ca-rsa1024 root ca -sha256
key leaf-under-rsa1024 RSA rsa_keygen_bits:2048
issue leaf-under-rsa1024 ca-rsa1024 leaf -sha256
