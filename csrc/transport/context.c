/* context.c: by what the connections of a listener are greeted: a context of OpenSSL, made from files, and exchanged on a
 * server that runs. Who was greeted by an older one goes on with that. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "transport/tls.h"

/* -- what OpenSSL calls ---------------------------------------------------------------------------------------------- */

static int password_of(char *room, int size, int writes, void *argument)
{
    size_t length = argument ? strlen(argument) : 0;
    (void)writes;
    if (length > (size_t)size)
        return -1;
    memcpy(room, argument ? argument : "", length);
    return (int)length;
}

/* The first of our names that the client speaks; one that speaks none of them is refused, by the alert
 * no_application_protocol (RFC 7301, 3.2). Who offers none at all isn't asked. */
static int select_alpn(ps_SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *offered,
                       unsigned offered_size, void *argument)
{
    const ps_tls_session *session = ps_libssl.BIO_get_data(ps_libssl.SSL_get_rbio(ssl));
    const ps_security *security = session->security;
    (void)argument;
    for (unsigned ours = 0; ours < security->alpn_size; ours += security->alpn[ours] + 1u) {
        for (unsigned at = 0; at < offered_size; at += offered[at] + 1u) {
            if (offered[at] != security->alpn[ours] || at + offered[at] >= offered_size ||
                memcmp(offered + at + 1, security->alpn + ours + 1, offered[at]) != 0)
                continue;
            *out = offered + at + 1;
            *size = offered[at];
            return PS_SSL_TLSEXT_ERR_OK;
        }
    }
    return PS_SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* -- the context ------------------------------------------------------------------------------------------------------ */

static int set_keys(ps_SSL_CTX *context, const ps_tls_options *options)
{
    const char *key = options->key ? options->key : options->cert;
    ps_libssl.SSL_CTX_set_default_passwd_cb(context, password_of);
    ps_libssl.SSL_CTX_set_default_passwd_cb_userdata(context, (void *)(uintptr_t)options->password);
    bool good = ps_libssl.SSL_CTX_use_certificate_chain_file(context, options->cert) == 1 &&
                ps_libssl.SSL_CTX_use_PrivateKey_file(context, key, PS_SSL_FILETYPE_PEM) == 1 &&
                ps_libssl.SSL_CTX_check_private_key(context) == 1;
    ps_libssl.SSL_CTX_set_default_passwd_cb_userdata(context, NULL); /* it is the caller's */
    return good ? 0 : -EINVAL;
}

static int set_verify(ps_SSL_CTX *context, const ps_tls_options *options)
{
    int mode = options->verify == PS_VERIFY_NONE ? PS_SSL_VERIFY_NONE : PS_SSL_VERIFY_PEER;
    if (options->verify == PS_VERIFY_REQUIRE)
        mode |= PS_SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    ps_libssl.SSL_CTX_set_verify(context, mode, NULL);
    if (options->verify == PS_VERIFY_NONE)
        return 0;
    if (!options->ca_file && !options->ca_folder)
        return ps_libssl.SSL_CTX_set_default_verify_paths(context) == 1 ? 0 : -EINVAL;
    if (ps_libssl.SSL_CTX_load_verify_locations(context, options->ca_file, options->ca_folder) != 1)
        return -EINVAL;
    ps_STACK *names = options->ca_file ? ps_libssl.SSL_load_client_CA_file(options->ca_file) : NULL;
    if (options->ca_file && !names)
        return -EINVAL;
    if (names)
        ps_libssl.SSL_CTX_set_client_CA_list(context, names);
    return 0;
}

/* Those of another context would do, too, if it has the same keys: one that was exchanged for this one, say. Where clients
 * are asked for certificates there are none: who goes on shows none again, and it might have expired since, or its CA be gone. */
static bool set_tickets(ps_SSL_CTX *context, const ps_tls_options *options)
{
    if (options->verify != PS_VERIFY_NONE) {
        ps_libssl.SSL_CTX_set_options(context, PS_SSL_OP_NO_TICKET);
        return ps_libssl.SSL_CTX_set_num_tickets(context, 0) == 1;
    }
    if (ps_libssl.SSL_CTX_set_num_tickets(context, 1) != 1)
        return false;
    return !options->tickets || ps_libssl.SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ps__tickets_seal) == 1;
}

static int set_rules(ps_SSL_CTX *context, const ps_tls_options *options)
{
    static const unsigned char id[] = "pysock"; /* sessions are for servers of this name; their tickets, for this context */
    ps_libssl.SSL_CTX_set_options(context, PS_SSL_OP_NO_COMPRESSION | PS_SSL_OP_NO_RENEGOTIATION);
    ps_libssl.SSL_CTX_ctrl(context, PS_SSL_CTRL_MODE, PS_SSL_MODE_RELEASE_BUFFERS, NULL);
    /* After a record without a byte for anybody we are told so: records.c counts on it. */
    ps_libssl.SSL_CTX_ctrl(context, PS_SSL_CTRL_CLEAR_MODE, PS_SSL_MODE_AUTO_RETRY, NULL);
    ps_libssl.SSL_CTX_ctrl(context, PS_SSL_CTRL_SET_SESS_CACHE_MODE, PS_SSL_SESS_CACHE_OFF, NULL);
    if (options->alpn_size)
        ps_libssl.SSL_CTX_set_alpn_select_cb(context, select_alpn, NULL);
    bool good = ps_libssl.SSL_CTX_ctrl(context, PS_SSL_CTRL_SET_MIN_PROTO_VERSION, (long)options->minimum, NULL) == 1 &&
                ps_libssl.SSL_CTX_set_session_id_context(context, id, sizeof id - 1) == 1 &&
                set_tickets(context, options);
    return good ? 0 : -EINVAL;
}

static void tell_why(char *why, size_t room)
{
    unsigned long error = ps_libssl.ERR_peek_last_error();
    const char *reason = error ? ps_libssl.ERR_reason_error_string(error) : NULL;
    snprintf(why, room, "%s", reason ? reason : "OpenSSL doesn't say why");
    ps_libssl.ERR_clear_error();
}

static void free_security(ps_security *security)
{
    if (security->context)
        ps_libssl.SSL_CTX_free(security->context);
    ps_tickets_drop(security->tickets);
    ps__free(security);
}

ps_security *ps__security_new(const ps_tls_options *options, int *error, char *why, size_t room)
{
    ps_security *security = ps_sys.allocate(sizeof *security);
    *error = -ENOMEM;
    if (!security)
        return NULL;
    *security = (ps_security){.users = 1, .verify = (uint8_t)options->verify, .alpn_size = (uint8_t)options->alpn_size};
    if (options->alpn_size)
        memcpy(security->alpn, options->alpn, options->alpn_size);
    security->tickets = ps__tickets_share(options->tickets);
    ps_libssl.ERR_clear_error();
    security->context = ps_libssl.SSL_CTX_new(ps_libssl.TLS_server_method());
    if (security->context)
        *error = set_rules(security->context, options);
    if (*error == 0)
        *error = set_keys(security->context, options);
    if (*error == 0)
        *error = set_verify(security->context, options);
    if (*error == 0)
        return security;
    tell_why(why, room);
    free_security(security);
    return NULL;
}

void ps__security_drop(ps_security *security)
{
    if (security && --security->users == 0)
        free_security(security);
}
