# Adds nccl_one_gpu to the build when everything else is there: -DCMAKE_PROJECT_bertune_INCLUDE=<this file>
set(nccl_one_gpu ${CMAKE_CURRENT_LIST_DIR}/nccl_one_gpu.c)  # deferred arguments are evaluated at the end
cmake_language(DEFER CALL add_executable nccl_one_gpu ${nccl_one_gpu})
cmake_language(DEFER CALL target_link_libraries nccl_one_gpu PRIVATE bertune_comm bertune_cuda)
