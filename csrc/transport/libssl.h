/* libssl.h: OpenSSL 3, as a table of its functions, which is filled at run time: nothing of it is needed to build, and nothing
 * is shipped. The prototypes are declared here by hand; OpenSSL 3 keeps them (its policy for "ABI compatibility"). Tests
 * replace entries to make the n-th call fail. */
#ifndef PYSOCK_TRANSPORT_LIBSSL_H
#define PYSOCK_TRANSPORT_LIBSSL_H

#include <stddef.h>
#include <stdint.h>

/* OpenSSL's own types, of which nobody here sees the inside. The names are ours: a test may include OpenSSL's headers. */
typedef struct ssl_st ps_SSL;
typedef struct ssl_ctx_st ps_SSL_CTX;
typedef struct ssl_method_st ps_SSL_METHOD;
typedef struct ssl_cipher_st ps_SSL_CIPHER;
typedef struct bio_st ps_BIO;
typedef struct bio_method_st ps_BIO_METHOD;
typedef struct x509_st ps_X509;
typedef struct X509_name_st ps_X509_NAME;
typedef struct X509_name_entry_st ps_X509_NAME_ENTRY;
typedef struct asn1_string_st ps_ASN1_STRING;
typedef struct asn1_object_st ps_ASN1_OBJECT;
typedef struct evp_md_st ps_EVP_MD;
typedef struct stack_st ps_STACK;
typedef struct evp_cipher_st ps_EVP_CIPHER;

/* This one is open: openssl/core.h. */
typedef struct ps_OSSL_PARAM {
    const char *key;
    unsigned data_type;
    void *data;
    size_t data_size, return_size;
} ps_OSSL_PARAM;

typedef int ps_alpn_select(ps_SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *offered,
                           unsigned offered_size, void *argument);
typedef int ps_ticket_sealed(ps_SSL *ssl, unsigned char *name, unsigned char *iv, void *cipher, void *mac, int seals);
typedef int ps_password(char *room, int size, int writes, void *argument);
typedef int ps_verified(int good, void *store);

/* each(result, name, arguments) */
#define PS_LIBSSL(each)                                                                                                \
    each(const ps_SSL_METHOD *, TLS_server_method, (void))                                                             \
    each(ps_SSL_CTX *, SSL_CTX_new, (const ps_SSL_METHOD *method))                                                     \
    each(void, SSL_CTX_free, (ps_SSL_CTX *context))                                                                    \
    each(long, SSL_CTX_ctrl, (ps_SSL_CTX *context, int command, long number, void *pointer))                           \
    each(uint64_t, SSL_CTX_set_options, (ps_SSL_CTX *context, uint64_t options))                                       \
    each(int, SSL_CTX_use_certificate_chain_file, (ps_SSL_CTX *context, const char *path))                             \
    each(int, SSL_CTX_use_PrivateKey_file, (ps_SSL_CTX *context, const char *path, int type))                          \
    each(int, SSL_CTX_check_private_key, (const ps_SSL_CTX *context))                                                  \
    each(void, SSL_CTX_set_default_passwd_cb, (ps_SSL_CTX *context, ps_password *callback))                            \
    each(void, SSL_CTX_set_default_passwd_cb_userdata, (ps_SSL_CTX *context, void *argument))                          \
    each(int, SSL_CTX_load_verify_locations, (ps_SSL_CTX *context, const char *file, const char *folder))              \
    each(int, SSL_CTX_set_default_verify_paths, (ps_SSL_CTX *context))                                                 \
    each(ps_STACK *, SSL_load_client_CA_file, (const char *path))                                                      \
    each(void, SSL_CTX_set_client_CA_list, (ps_SSL_CTX *context, ps_STACK *names))                                     \
    each(void, SSL_CTX_set_verify, (ps_SSL_CTX *context, int mode, ps_verified *callback))                             \
    each(void, SSL_CTX_set_alpn_select_cb, (ps_SSL_CTX *context, ps_alpn_select *callback, void *argument))            \
    each(int, SSL_CTX_set_session_id_context, (ps_SSL_CTX *context, const unsigned char *id, unsigned size))           \
    each(int, SSL_CTX_set_num_tickets, (ps_SSL_CTX *context, size_t count))                                            \
    each(int, SSL_CTX_set_tlsext_ticket_key_evp_cb, (ps_SSL_CTX *context, ps_ticket_sealed *callback))                 \
    each(ps_SSL *, SSL_new, (ps_SSL_CTX *context))                                                                     \
    each(void, SSL_free, (ps_SSL *ssl))                                                                                \
    each(void, SSL_set_bio, (ps_SSL *ssl, ps_BIO *from, ps_BIO *to))                                                   \
    each(ps_BIO *, SSL_get_rbio, (const ps_SSL *ssl))                                                                  \
    each(void, SSL_set_accept_state, (ps_SSL *ssl))                                                                    \
    each(int, SSL_do_handshake, (ps_SSL *ssl))                                                                         \
    each(int, SSL_read_ex, (ps_SSL *ssl, void *to, size_t room, size_t *got))                                          \
    each(int, SSL_write_ex, (ps_SSL *ssl, const void *from, size_t size, size_t *written))                             \
    each(int, SSL_get_error, (const ps_SSL *ssl, int result))                                                          \
    each(int, SSL_shutdown, (ps_SSL *ssl))                                                                             \
    each(const char *, SSL_get_version, (const ps_SSL *ssl))                                                           \
    each(const ps_SSL_CIPHER *, SSL_get_current_cipher, (const ps_SSL *ssl))                                           \
    each(const char *, SSL_CIPHER_get_name, (const ps_SSL_CIPHER *cipher))                                             \
    each(void, SSL_get0_alpn_selected, (const ps_SSL *ssl, const unsigned char **name, unsigned *size))                \
    each(const char *, SSL_get_servername, (const ps_SSL *ssl, int type))                                              \
    each(ps_X509 *, SSL_get1_peer_certificate, (const ps_SSL *ssl))                                                    \
    each(long, SSL_get_verify_result, (const ps_SSL *ssl))                                                             \
    each(int, SSL_session_reused, (const ps_SSL *ssl))

#define PS_LIBCRYPTO(each)                                                                                             \
    each(ps_BIO_METHOD *, BIO_meth_new, (int type, const char *name))                                                  \
    each(void, BIO_meth_free, (ps_BIO_METHOD *method))                                                                 \
    each(int, BIO_meth_set_read, (ps_BIO_METHOD *method, int (*read)(ps_BIO *, char *, int)))                          \
    each(int, BIO_meth_set_write, (ps_BIO_METHOD *method, int (*write)(ps_BIO *, const char *, int)))                  \
    each(int, BIO_meth_set_ctrl, (ps_BIO_METHOD *method, long (*ctrl)(ps_BIO *, int, long, void *)))                   \
    each(ps_BIO *, BIO_new, (const ps_BIO_METHOD *method))                                                             \
    each(int, BIO_free, (ps_BIO *bio))                                                                                 \
    each(void, BIO_set_init, (ps_BIO *bio, int init))                                                                  \
    each(void, BIO_set_data, (ps_BIO *bio, void *data))                                                                \
    each(void *, BIO_get_data, (ps_BIO *bio))                                                                          \
    each(void, BIO_set_flags, (ps_BIO *bio, int flags))                                                                \
    each(void, BIO_clear_flags, (ps_BIO *bio, int flags))                                                              \
    each(unsigned long, ERR_peek_error, (void))                                                                        \
    each(unsigned long, ERR_peek_last_error, (void))                                                                   \
    each(void, ERR_clear_error, (void))                                                                                \
    each(const char *, ERR_reason_error_string, (unsigned long error))                                                 \
    each(const char *, X509_verify_cert_error_string, (long result))                                                   \
    each(void, X509_free, (ps_X509 *certificate))                                                                      \
    each(int, X509_digest, (const ps_X509 *certificate, const ps_EVP_MD *type, unsigned char *digest, unsigned *size)) \
    each(const ps_EVP_MD *, EVP_sha256, (void))                                                                        \
    each(int, EVP_Digest, (const void *data, size_t size, unsigned char *digest, unsigned *digest_size,                \
                           const ps_EVP_MD *type, void *engine))                                                       \
    each(int, RAND_bytes, (unsigned char *to, int size))                                                               \
    each(const ps_EVP_CIPHER *, EVP_aes_256_cbc, (void))                                                               \
    each(int, EVP_EncryptInit_ex, (void *cipher, const ps_EVP_CIPHER *type, void *engine, const unsigned char *key,    \
                                   const unsigned char *iv))                                                           \
    each(int, EVP_DecryptInit_ex, (void *cipher, const ps_EVP_CIPHER *type, void *engine, const unsigned char *key,    \
                                   const unsigned char *iv))                                                           \
    each(int, EVP_MAC_CTX_set_params, (void *mac, const ps_OSSL_PARAM *rules))                                         \
    each(ps_X509_NAME *, X509_get_subject_name, (const ps_X509 *certificate))                                          \
    each(int, X509_NAME_entry_count, (const ps_X509_NAME *name))                                                       \
    each(ps_X509_NAME_ENTRY *, X509_NAME_get_entry, (const ps_X509_NAME *name, int index))                             \
    each(ps_ASN1_OBJECT *, X509_NAME_ENTRY_get_object, (const ps_X509_NAME_ENTRY *entry))                              \
    each(ps_ASN1_STRING *, X509_NAME_ENTRY_get_data, (const ps_X509_NAME_ENTRY *entry))                                \
    each(int, OBJ_obj2nid, (const ps_ASN1_OBJECT *object))                                                             \
    each(const char *, OBJ_nid2ln, (int nid))                                                                          \
    each(int, ASN1_STRING_to_UTF8, (unsigned char **to, const ps_ASN1_STRING *string))                                 \
    each(const unsigned char *, ASN1_STRING_get0_data, (const ps_ASN1_STRING *string))                                 \
    each(int, ASN1_STRING_length, (const ps_ASN1_STRING *string))                                                      \
    each(void *, X509_get_ext_d2i, (const ps_X509 *certificate, int nid, int *critical, int *index))                   \
    each(int, OPENSSL_sk_num, (const ps_STACK *stack))                                                                 \
    each(void *, OPENSSL_sk_value, (const ps_STACK *stack, int index))                                                 \
    each(void *, GENERAL_NAME_get0_value, (const void *name, int *type))                                               \
    each(void, GENERAL_NAMES_free, (void *names))                                                                      \
    each(void, CRYPTO_free, (void *block, const char *file, int line))

#define PS_LIBSSL_MEMBER(result, name, arguments) result(*name) arguments;

typedef struct ps_libssl_table {
    PS_LIBSSL(PS_LIBSSL_MEMBER)
    PS_LIBCRYPTO(PS_LIBSSL_MEMBER)
} ps_libssl_table;

/* Nothing is in it before ps_libssl_load has returned 0. */
extern ps_libssl_table ps_libssl;

/* The numbers of OpenSSL that are used, each under OpenSSL's name behind PS_. */
enum {
    PS_SSL_FILETYPE_PEM = 1,
    PS_SSL_VERIFY_NONE = 0,
    PS_SSL_VERIFY_PEER = 1,
    PS_SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2,
    PS_SSL_ERROR_SSL = 1,
    PS_SSL_ERROR_WANT_READ = 2,
    PS_SSL_ERROR_WANT_WRITE = 3,
    PS_SSL_ERROR_ZERO_RETURN = 6,
    PS_SSL_CTRL_MODE = 33,
    PS_SSL_CTRL_SET_SESS_CACHE_MODE = 44,
    PS_SSL_CTRL_CLEAR_MODE = 78,
    PS_SSL_CTRL_SET_MIN_PROTO_VERSION = 123,
    PS_SSL_SESS_CACHE_OFF = 0,
    PS_SSL_MODE_AUTO_RETRY = 4,
    PS_SSL_MODE_RELEASE_BUFFERS = 16,
    PS_SSL_OP_NO_TICKET = 1 << 14,
    PS_SSL_OP_NO_COMPRESSION = 1 << 17,
    PS_SSL_OP_NO_RENEGOTIATION = 1 << 30,
    PS_SSL_TLSEXT_ERR_OK = 0,
    PS_SSL_TLSEXT_ERR_ALERT_FATAL = 2,
    PS_TLSEXT_NAMETYPE_host_name = 0,
    PS_BIO_TYPE_SOURCE_SINK = 0x400,
    PS_BIO_CTRL_FLUSH = 11,
    PS_BIO_FLAGS_READ = 1,
    PS_BIO_FLAGS_RWS = 7,
    PS_BIO_FLAGS_SHOULD_RETRY = 8,
    PS_NID_subject_alt_name = 85,
    PS_OSSL_PARAM_UTF8_STRING = 4,
    PS_OSSL_PARAM_OCTET_STRING = 5,
    PS_AES_BLOCK = 16,
    PS_GEN_EMAIL = 1,
    PS_GEN_DNS = 2,
    PS_GEN_URI = 6,
    PS_GEN_IPADD = 7,
    PS_X509_V_OK = 0,
    PS_TLS1_2_VERSION = 0x0303,
    PS_TLS1_3_VERSION = 0x0304
};

#endif
