/* certificate.c: what is known of the other end of a connection, when it has been greeted: the facts, packed for whoever asks.
 *
 * A fact is its kind (enum ps_fact), a u16 for its size, and so many bytes: no text of a certificate ends at a NUL, so what
 * stands in front of one can't pass for the whole. An alternative name that isn't text, or has a NUL, is none. What is from a
 * certificate is there only where its chain was verified: without that anybody may write what he likes into his own. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "transport/tls.h"

enum { DIGEST_SIZE = 64 };

typedef struct packer {
    uint8_t *to;
    size_t size; /* of what there is */
    size_t room;
} packer;

static void put_fact(packer *p, enum ps_fact kind, const void *data, size_t size)
{
    if (size > UINT16_MAX)
        return;
    if (p->to && p->size + 3 + size > p->room)
        return; /* it wasn't there when it was counted */
    if (p->to) {
        uint8_t *at = p->to + p->size;
        at[0] = (uint8_t)kind;
        at[1] = (uint8_t)(size >> 8);
        at[2] = (uint8_t)size;
        if (size)
            memcpy(at + 3, data, size);
    }
    p->size += 3 + size;
}

static void put_text_fact(packer *p, enum ps_fact kind, const char *text)
{
    if (text)
        put_fact(p, kind, text, strlen(text));
}

static bool is_text(const uint8_t *data, size_t size)
{
    return size && ps__is_utf8(data, size) && !memchr(data, 0, size);
}

static void put_general_name(packer *p, const void *name)
{
    int type = -1;
    const ps_ASN1_STRING *string = ps_libssl.GENERAL_NAME_get0_value(name, &type);
    enum ps_fact kind = type == PS_GEN_DNS     ? PS_FACT_DNS
                        : type == PS_GEN_URI   ? PS_FACT_URI
                        : type == PS_GEN_EMAIL ? PS_FACT_EMAIL
                        : type == PS_GEN_IPADD ? PS_FACT_IP
                                               : PS_FACT_NONE;
    if (kind == PS_FACT_NONE || !string)
        return;
    const uint8_t *data = ps_libssl.ASN1_STRING_get0_data(string);
    int size = ps_libssl.ASN1_STRING_length(string);
    if (data && size > 0 && (kind == PS_FACT_IP ? size == 4 || size == 16 : is_text(data, (size_t)size)))
        put_fact(p, kind, data, (size_t)size);
}

static void put_general_names(packer *p, const ps_X509 *certificate)
{
    void *names = ps_libssl.X509_get_ext_d2i(certificate, PS_NID_subject_alt_name, NULL, NULL);
    if (!names)
        return;
    for (int i = 0, count = ps_libssl.OPENSSL_sk_num(names); i < count; i++) {
        const void *name = ps_libssl.OPENSSL_sk_value(names, i);
        if (name)
            put_general_name(p, name);
    }
    ps_libssl.GENERAL_NAMES_free(names);
}

/* One after the other: what it is, as "CN", and what it says. */
static void put_entry(packer *p, const ps_X509_NAME_ENTRY *entry)
{
    unsigned char *text = NULL;
    const char *what = ps_libssl.OBJ_nid2ln(ps_libssl.OBJ_obj2nid(ps_libssl.X509_NAME_ENTRY_get_object(entry)));
    int size = ps_libssl.ASN1_STRING_to_UTF8(&text, ps_libssl.X509_NAME_ENTRY_get_data(entry));
    if (what && size > 0 && ps__is_utf8(text, (size_t)size)) {
        put_text_fact(p, PS_FACT_SUBJECT_KEY, what);
        put_fact(p, PS_FACT_SUBJECT, text, (size_t)size);
    }
    if (text)
        ps_libssl.CRYPTO_free(text, "", 0);
}

static void put_subject(packer *p, const ps_X509 *certificate)
{
    const ps_X509_NAME *name = ps_libssl.X509_get_subject_name(certificate);
    for (int i = 0, count = name ? ps_libssl.X509_NAME_entry_count(name) : 0; i < count; i++) {
        const ps_X509_NAME_ENTRY *entry = ps_libssl.X509_NAME_get_entry(name, i);
        if (entry)
            put_entry(p, entry);
    }
}

static void put_certificate(packer *p, const ps_X509 *certificate)
{
    uint8_t digest[DIGEST_SIZE];
    unsigned size = 0;
    const ps_EVP_MD *sha256 = ps_libssl.EVP_sha256();
    if (sha256 && ps_libssl.X509_digest(certificate, sha256, digest, &size) == 1)
        put_fact(p, PS_FACT_FINGERPRINT, digest, size);
    put_subject(p, certificate);
    put_general_names(p, certificate);
}

static void put_all(packer *p, const ps_tls_session *session, const ps_X509 *certificate)
{
    const unsigned char *alpn = NULL;
    unsigned alpn_size = 0;
    const ps_SSL_CIPHER *cipher = ps_libssl.SSL_get_current_cipher(session->ssl);
    p->size = 0;
    put_text_fact(p, PS_FACT_VERSION, ps_libssl.SSL_get_version(session->ssl));
    put_text_fact(p, PS_FACT_CIPHER, cipher ? ps_libssl.SSL_CIPHER_get_name(cipher) : NULL);
    ps_libssl.SSL_get0_alpn_selected(session->ssl, &alpn, &alpn_size);
    if (alpn_size)
        put_fact(p, PS_FACT_ALPN, alpn, alpn_size);
    put_text_fact(p, PS_FACT_SNI, ps_libssl.SSL_get_servername(session->ssl, PS_TLSEXT_NAMETYPE_host_name));
    if (ps_libssl.SSL_session_reused(session->ssl) == 1)
        put_fact(p, PS_FACT_RESUMED, NULL, 0);
    if (certificate)
        put_certificate(p, certificate);
}

static bool is_verified(const ps_tls_session *session)
{
    return session->security->verify != PS_VERIFY_NONE && ps_libssl.SSL_get_verify_result(session->ssl) == PS_X509_V_OK;
}

int ps__tls_learn(ps_tls_session *session)
{
    ps_engine *engine = session->engine;
    ps_X509 *certificate = is_verified(session) ? ps_libssl.SSL_get1_peer_certificate(session->ssl) : NULL;
    packer counts = {.to = NULL}, p;
    put_all(&counts, session, certificate);
    ps_facts *facts = ps_sys.allocate(sizeof *facts + counts.size);
    if (facts) {
        p = (packer){.to = facts->data, .room = counts.size};
        put_all(&p, session, certificate);
        facts->size = p.size;
    }
    if (certificate)
        ps_libssl.X509_free(certificate);
    ps_libssl.ERR_clear_error();
    if (!facts)
        return -ENOMEM;
    pthread_mutex_lock(&engine->lock); /* other threads ask */
    session->facts = facts;
    pthread_mutex_unlock(&engine->lock);
    return 0;
}
